if git diff --quiet -- images; then
  echo "every pin is the newest"
  exit 0
fi
branch=bump/$(git hash-object --stdin < bump.md)
git switch --create "$branch"
git -c user.name=bump -c user.email=bump@noreply.invalid commit --quiet --message "$(head -n 1 bump.md)" -- images
git push --quiet --push-option merge_request.create --push-option "merge_request.title=$(head -n 1 bump.md)" \
  "https://bump:$BUMP_TOKEN@$CI_SERVER_HOST/$CI_PROJECT_PATH.git" "$branch"
