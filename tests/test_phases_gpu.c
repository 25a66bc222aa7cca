// --device cuda as a user types it, on the bundled model and the emulated GPU.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/json.h"
#include "kernels/cuda/cuda.h"

// What "./phaseN <arguments>" prints, errors too if asked for; the status.
static int run(const char *phase, const char *arguments, bool errors, char *out, size_t size) {
    char command[1024];
    if (access(phase, X_OK) != 0)
        cr_skip_test("no ./%s", phase);
    snprintf(command, sizeof command, "./%s %s %s", phase, arguments,
             errors ? "2>&1" : "2>/dev/null");
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    out[fread(out, 1, size - 1, f)] = '\0';
    return WEXITSTATUS(pclose(f));
}

static cJSON *rows_of(const char *phase, const char *arguments) {
    char out[16384], command[768];
    struct error err = {0};
    snprintf(command, sizeof command, "%s --json - --quiet", arguments);
    cr_assert_eq(run(phase, command, false, out, sizeof out), 0, "%s", out);
    cJSON *json = json_parse(out, strlen(out), "stdout", &err);
    cr_assert_not_null(json, "%s", err.message);
    return json;
}

static double number(const cJSON *row, const char *key) {
    const cJSON *v = json_get(row, key);
    cr_assert(cJSON_IsNumber(v), "no number '%s'", key);
    return v->valuedouble;
}

// Quality and text are the CPU's; VRAM is shown; times, which mean nothing, are not.
Test(phases_gpu, rows_are_the_cpu_s) {
    const char *arguments = "--limit 24 --ctx 24 --choices none --config 'int4 group 64' "
                            "--prompt 'Victor was given' --max-tokens 3";
    char gpu[512];
    snprintf(gpu, sizeof gpu, "%s --device cuda --emulate --gpu-layers 100", arguments);
    cJSON *want = rows_of("phase3", arguments), *got = rows_of("phase3", gpu);
    cr_assert_str_eq(json_get(got, "device")->valuestring, "cuda (emulator)");
    for (int i = 0; i < 2; i++) {
        const cJSON *a = cJSON_GetArrayItem(json_get(want, "rows"), i);
        const cJSON *b = cJSON_GetArrayItem(json_get(got, "rows"), i);
        cr_assert(fabs(number(b, "ppl") / number(a, "ppl") - 1) < 2e-3);
        if (i == 0) // the CPU decodes with activations in int8 where weights are INT4
            cr_assert_str_eq(json_get(b, "text")->valuestring, json_get(a, "text")->valuestring);
        cr_assert(number(b, "vram_bytes") > number(b, "model_bytes"));
        cr_assert_null(cJSON_GetObjectItem(b, "decode_tps"));
        if (i)
            cr_assert(fabs(number(b, "kld_mean") / number(a, "kld_mean") - 1) < 0.2);
    }
    cJSON_Delete(want);
    cJSON_Delete(got);
}

Test(phases_gpu, some_layers_on_the_cpu) {
    const char *arguments = "--limit 8 --ctx 8 --choices none";
    cJSON *want = rows_of("phase1", arguments);
    cJSON *got = rows_of("phase1", "--limit 8 --ctx 8 --choices none --device cuda --emulate "
                                   "--gpu-layers 1");
    double a = number(cJSON_GetArrayItem(json_get(want, "rows"), 0), "ppl");
    double b = number(cJSON_GetArrayItem(json_get(got, "rows"), 0), "ppl");
    cr_assert(fabs(b / a - 1) < 2e-3, "%g %g", a, b);
    cJSON_Delete(want);
    cJSON_Delete(got);
}

Test(phases_gpu, without_a_gpu_it_is_one_line) {
    char out[4096];
    const char *why;
    if (cuda_device(&why))
        cr_skip_test("there is a GPU");
    cr_assert_eq(run("phase2", "--device cuda", true, out, sizeof out), 1, "%s", out);
    cr_assert(strncmp(out, "phase2: --device cuda: ", 23) == 0, "%s", out);
    cr_assert(strchr(out, '\n') == out + strlen(out) - 1 && strstr(out, "--emulate"), "%s", out);
    cr_assert_eq(run("phase2", "--emulate", true, out, sizeof out), 2, "%s", out);
    cr_assert_eq(run("phase2", "--gpu-layers 3", true, out, sizeof out), 2, "%s", out);
}
