if git diff --quiet -- images; then
  echo "every pin is the newest"
  exit 0
fi
branch=bump/$(git hash-object --stdin < bump.md)
if git ls-remote --exit-code --heads origin "$branch" >/dev/null; then
  echo "$branch is proposed already"
  exit 0
fi
git switch --create "$branch"
git -c user.name=bump -c user.email=bump@users.noreply.github.com commit --quiet --message "$(head -n 1 bump.md)" -- images
gh auth setup-git
git push --quiet origin "$branch"
gh pr create --head "$branch" --title "$(head -n 1 bump.md)" --body-file bump.md
