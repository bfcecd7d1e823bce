/* Stands for NVIDIA's management library on machines without a GPU: one card, whose figures the
 * tests know. Built by `nvml_library.py`; NVIDIA's own Python binding is what calls it. */
#include <string.h>

#define OK 0
#define NOT_SUPPORTED 3

static int the_card;

struct memory { unsigned long long total, free, used; };
struct utilization { unsigned int gpu, memory; };

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "a fault of the test's library"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    (void)index;
    *device = &the_card;
    return OK;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned int length) {
    (void)device;
    strncpy(text, "GPU-4d6f-test", length);
    return OK;
}

int nvmlDeviceGetName(void *device, char *text, unsigned int length) {
    (void)device;
    strncpy(text, "Test Card 24G", length);
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
    (void)device;
    memory->total = 24ULL << 30;
    memory->used = 9ULL << 30;
    memory->free = 15ULL << 30;
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, struct utilization *utilization) {
    (void)device;
    utilization->gpu = 37;
    utilization->memory = 12;
    return OK;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius) {
    (void)device;
    (void)sensor;
    *celsius = 61;
    return OK;
}

/* Not every card tells what it draws. */
int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    (void)device;
    (void)milliwatts;
    return NOT_SUPPORTED;
}
