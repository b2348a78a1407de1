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

static void write_to(const char *path, const char *data, size_t size, int flags) {
  int fd = open(path, O_CREAT | O_WRONLY | flags, 0600);
  ssize_t done = fd < 0 ? -1 : write(fd, data, size);
  printf("%s: %s\n", path, done < 0 ? strerror(errno) : (size_t)done < size ? "in part" : "written");
  if (fd >= 0) close(fd);
}

/* An engine on a GPU for which the driver compiles: names the device, waits while there is a file `wait`, leaves 4096 bytes in
   CUDA_CACHE_PATH unless they are there, and copies /picture.png to what follows --output. A cache that fails is no failure. */
static int compile(int count, char **words) {
  static char picture[1 << 20], code[4096], wait[4096], made[4096];
  const char *cache = getenv("CUDA_CACHE_PATH");
  FILE *file = fopen("/picture.png", "r");
  size_t size = file ? fread(picture, 1, sizeof picture, file) : 0;
  puts("  Device 0: NVIDIA L4, compute capability 8.9, VMM: yes");
  if (cache) {
    snprintf(wait, sizeof wait, "%s/wait", cache);
    snprintf(made, sizeof made, "%s/code", cache);
    for (int tries = 0; !access(wait, F_OK) && tries < 3000; tries++) usleep(10000);
    if (!access(made, F_OK)) puts("code: found");
    else write_to(made, code, sizeof code, O_EXCL);
  } else puts("code: not kept");
  for (int i = 1; i + 1 < count; i++) if (!strcmp(words[i], "--output")) write_to(words[i + 1], picture, size, 0);
  return 0;
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!strcmp(what, "look")) look_around(count - 2, words + 2);
  else if (!strcmp(what, "arguments")) for (int i = 2; i < count; i++) printf("%zu:%s\n", strlen(words[i]), words[i]);
  else if (!strcmp(what, "exit")) { fputs("last words\n", stderr); return atoi(words[2]); }
  else if (!strcmp(what, "compile")) return compile(count, words);
  else if (!strcmp(what, "abort")) abort();
  else if (!strcmp(what, "signal")) { raise(atoi(words[2])); }
  else if (!strcmp(what, "eat")) eat();
  else if (!strcmp(what, "sleep")) { puts("asleep"); usleep(1000 * atoi(words[2])); puts("awake"); }
  else if (!strcmp(what, "pour")) for (long i = 0; i < atol(words[2]); i++) printf("%09ld\n", i);
  return 0;
}
