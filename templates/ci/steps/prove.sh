sdrun verify "sdrun:$TAG"
