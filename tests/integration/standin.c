/* Stands in for the engine where a test needs an end that no healthy engine comes to, or a look around inside the container.
   Built static, so that it runs in an image without a C library of its own to rely on. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void copy(const char *path) {
  char line[4096];
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) fputs(line, stdout);
  if (file) fclose(file);
}

static void try_write(const char *path) {
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  printf("write %s: %s\n", path, fd < 0 ? strerror(errno) : "ok");
  if (fd >= 0) close(fd);
}

static void look_around(int count, char **paths) {
  struct dirent *entry;
  DIR *interfaces = opendir("/sys/class/net");
  copy("/proc/self/status");
  copy("/proc/self/mountinfo");
  while (interfaces && (entry = readdir(interfaces))) printf("interface %s\n", entry->d_name);
  for (int i = 0; i < count; i++) try_write(paths[i]);
}

static void eat(void) {
  for (;;) {
    char *block = malloc(1 << 20);
    if (block) memset(block, 1, 1 << 20);
  }
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!strcmp(what, "look")) look_around(count - 2, words + 2);
  else if (!strcmp(what, "arguments")) for (int i = 2; i < count; i++) printf("%zu:%s\n", strlen(words[i]), words[i]);
  else if (!strcmp(what, "exit")) { fputs("last words\n", stderr); return atoi(words[2]); }
  else if (!strcmp(what, "abort")) abort();
  else if (!strcmp(what, "signal")) { raise(atoi(words[2])); }
  else if (!strcmp(what, "eat")) eat();
  else if (!strcmp(what, "sleep")) { puts("asleep"); usleep(1000 * atoi(words[2])); puts("awake"); }
  else if (!strcmp(what, "pour")) for (long i = 0; i < atol(words[2]); i++) printf("%09ld\n", i);
  return 0;
}
