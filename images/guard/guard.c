/* Stands before the engine in every CUDA image: asks the driver what it is and what GPU it drives, compares that with what the
 * image holds, and either becomes the engine or ends with one line that says what to do. So an image is safe to start without
 * sdrun (docker run, a pod).
 *
 * It is installed under the name of each of the engine's programs (/usr/bin/sd-cli, /usr/bin/sd-server) and starts the program
 * of the name it was called by, from the folder that the GPU's rule names; so another entry point passes through it as well. In
 * an image for several archs each has its programs in a folder of its own.
 *
 * Exit codes are those of sdrun: 2 called by another name, 3 no usable GPU or driver, 4 no code for this GPU, 5 driver too old,
 * 127 the program is missing. SDRUN_GUARD=off starts the program of the first folder unasked.
 *
 * guard-target.h is rendered for each target (sdrun/core/guard.py): the verdicts in it are the resolver's own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum path { NONE, MISMATCH, JIT, COMPATIBLE, EXACT };

/* What happens to the image on GPUs of one capability (61 is 6.1; NEWER is any that is above all of them). `floor` is the CUDA
 * version its driver must speak, as cuDriverGetVersion tells it (12040 is 12.4); `driver` the oldest driver that does; `folder`
 * where the programs with its code lie. */
struct rule {
    int capability;
    enum path path;
    int floor;
    const char *driver;
    const char *folder;
};

/* A target that would run on a capability, if the driver speaks at least CUDA `floor`. Best first. */
struct way {
    int capability;
    int floor;
    const char *target;
};

#define NEWER 0
#include "guard-target.h"

enum { NO_GPU = 3, NO_CODE = 4, OLD_DRIVER = 5, CC_MAJOR = 75, CC_MINOR = 76, ERROR_NO_DEVICE = 100 };
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

struct gpu {
    int number;
    int capability;
    char name[96];
};

static int (*init)(unsigned);
static int (*driver_version)(int *);
static int (*device_count)(int *);
static int (*device_get)(int *, int);
static int (*device_name)(char *, int, int);
static int (*device_attribute)(int *, int, int);

static void end(int code, const char *id, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

static void end(int code, const char *id, const char *format, ...) {
    char text[1024];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    fprintf(stderr, "sdrun guard: %s: %s\n", id, text);
    exit(code);
}

static void start(const char *folder, char **argv) __attribute__((noreturn));

static void start(const char *folder, char **argv) {
    char program[256];
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    for (size_t i = 0; i < COUNT(programs); i++) {
        if (strcmp(name, programs[i]) == 0) {
            snprintf(program, sizeof program, "%s/%s", folder, name);
            execv(program, argv);
            end(127, "engine-missing", "%s cannot be started: %s", program, strerror(errno));
        }
    }
    end(2, "bad-option", "there is no program named %.80s in this image; the first one is /usr/bin/%s", name, programs[0]);
}

static void load_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        int absent = why != NULL && strstr(why, "libcuda.so.1: cannot open shared object file") != NULL;
        end(NO_GPU, "no-gpu", "no NVIDIA driver is in reach of this container (%s): start it with --gpus all (Docker) or "
            "--device nvidia.com/gpu=all (CDI), on a host with a driver of %s or newer",
            absent ? "libcuda.so.1 is not there" : why, GUARD_MIN_DRIVER);
    }
    *(void **)&init = dlsym(library, "cuInit");
    *(void **)&driver_version = dlsym(library, "cuDriverGetVersion");
    *(void **)&device_count = dlsym(library, "cuDeviceGetCount");
    *(void **)&device_get = dlsym(library, "cuDeviceGet");
    *(void **)&device_name = dlsym(library, "cuDeviceGetName");
    *(void **)&device_attribute = dlsym(library, "cuDeviceGetAttribute");
    if (!init || !driver_version || !device_count || !device_get || !device_name || !device_attribute)
        end(NO_GPU, "no-gpu", "libcuda.so.1 lacks a function that every NVIDIA driver has; it is not the driver's own");
}

static void check(int code, const char *call) {
    if (code == ERROR_NO_DEVICE)
        end(NO_GPU, "no-gpu", "the driver sees no GPU in this container: hand one over with --gpus or --device, and look at "
            "CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES");
    if (code != 0)
        end(NO_GPU, "no-gpu", "the NVIDIA driver does not work: %s fails with error %d (see nvidia-smi on the host; after an "
            "update of the driver, restart the host)", call, code);
}

static struct gpu look_at(int number) {
    struct gpu gpu = {.number = number, .name = "GPU"};
    int device, major = 0, minor = 0;
    check(device_get(&device, number), "cuDeviceGet");
    check(device_attribute(&major, CC_MAJOR, device), "cuDeviceGetAttribute");
    check(device_attribute(&minor, CC_MINOR, device), "cuDeviceGetAttribute");
    if (device_name(gpu.name, sizeof gpu.name, device) != 0)
        strcpy(gpu.name, "GPU");
    gpu.name[sizeof gpu.name - 1] = '\0';
    gpu.capability = major * 10 + minor;
    return gpu;
}

static const struct rule *rule_for(int capability) {
    static const struct rule none = {0, NONE, 0, "", ""};
    const struct rule *newer = &none;
    int highest = 0;
    for (size_t i = 0; i < COUNT(rules); i++) {
        if (rules[i].capability == capability)
            return &rules[i];
        if (rules[i].capability == NEWER)
            newer = &rules[i];
        if (rules[i].capability > highest)
            highest = rules[i].capability;
    }
    return capability > highest ? newer : &none;
}

static int runs(const struct rule *rule, int driver) {
    return rule->path >= JIT && driver >= rule->floor;
}

/* The best target for this GPU and driver; failing that, the best for a newer driver; NULL where none is known. */
static const struct way *way_for(int capability, int driver) {
    const struct way *later = NULL;
    for (size_t i = 0; i < COUNT(ways); i++) {
        if (ways[i].capability != capability)
            continue;
        if (ways[i].floor <= driver)
            return &ways[i];
        if (later == NULL)
            later = &ways[i];
    }
    return later;
}

static void refuse(const struct gpu *gpu, const struct rule *rule, int driver, int other) __attribute__((noreturn));

static void refuse(const struct gpu *gpu, const struct rule *rule, int driver, int other) {
    const struct way *way = way_for(gpu->capability, driver);
    char who[192], instead[160] = "";
    snprintf(who, sizeof who, "GPU %d, %s (compute capability %d.%d)", gpu->number, gpu->name, gpu->capability / 10,
             gpu->capability % 10);
    if (other >= 0)
        snprintf(instead, sizeof instead, "; GPU %d runs it: set CUDA_VISIBLE_DEVICES=%d", other, other);
    else if (rule->path >= JIT && (way == NULL || way->floor > driver))
        snprintf(instead, sizeof instead, "; install driver %s or newer on the host", rule->driver);
    else if (rule->path >= JIT)
        snprintf(instead, sizeof instead, "; install driver %s or newer on the host, or use target %s", rule->driver, way->target);
    else if (way != NULL && way->floor > driver)
        snprintf(instead, sizeof instead, "; use target %s, with a driver that speaks CUDA %d.%d", way->target,
                 way->floor / 1000, way->floor % 1000 / 10);
    else if (way != NULL)
        snprintf(instead, sizeof instead, "; use target %s", way->target);
    if (rule->path == NONE)
        end(NO_CODE, "no-code-for-capability", "%s (%s) has no code for %s%s", GUARD_TARGET, GUARD_HOLDS, who, instead);
    if (rule->path == MISMATCH)
        end(NO_CODE, "arch-mismatch", "in %s (%s) code and kernels would not fit together on %s%s", GUARD_TARGET, GUARD_HOLDS,
            who, instead);
    end(OLD_DRIVER, rule->path == JIT ? "ptx-newer-than-driver" : "driver-too-old",
        "%s needs a driver that speaks CUDA %d.%d for %s, and this one speaks %d.%d%s", GUARD_TARGET, rule->floor / 1000,
        rule->floor % 1000 / 10, who, driver / 1000, driver % 1000 / 10, instead);
}

int main(int argc, char **argv) {
    const char *asked = getenv("SDRUN_GUARD");
    int driver = 0, count = 0, other = -1;
    if (argc < 1)
        return 2;
    if (asked != NULL && strcmp(asked, "off") == 0)
        start(GUARD_PROGRAMS, argv);
    load_driver();
    check(init(0), "cuInit");
    check(driver_version(&driver), "cuDriverGetVersion");
    check(device_count(&count), "cuDeviceGetCount");
    if (count < 1)
        check(ERROR_NO_DEVICE, "cuDeviceGetCount");
    struct gpu first = look_at(0); /* the one that the engine uses */
    const struct rule *rule = rule_for(first.capability);
    if (!runs(rule, driver)) {
        for (int i = 1; i < count && other < 0; i++) {
            struct gpu gpu = look_at(i);
            if (runs(rule_for(gpu.capability), driver))
                other = i;
        }
        refuse(&first, rule, driver, other);
    }
    if (rule->path == JIT)
        fprintf(stderr, "sdrun guard: %s has no machine code for compute capability %d.%d; the driver compiles its PTX, which "
                "takes a while the first time\n", GUARD_TARGET, first.capability / 10, first.capability % 10);
    start(rule->folder, argv);
}
