# matrix image index; where nothing is missing, the last two are skipped
case "$ANY:$RESULTS" in
  "true:success success success" | "false:success skipped skipped") echo "all passed" ;;
  *)
    echo "matrix, image, index: $RESULTS"
    exit 1
    ;;
esac
