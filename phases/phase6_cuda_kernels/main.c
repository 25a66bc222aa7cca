// Phase 6: from a kernel that works to one that reads memory as fast as memory goes.
//
// Decoding reads every weight once per token and does next to nothing with it, so a kernel for one
// row of x is as good as the share of memory bandwidth it reaches. Twelve kernels, numbered; the
// number is the row here, the file in kernels/cuda/ and the section of the write-up.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "phases/phase6_cuda_kernels/bench.h"
#include "lab/lab.h"

static struct {
    bool emulate, check;
    int kernel;
    const char *format, *shape, *batch;
} flags;

static const struct cli_flag phase_flags[] = {
    {"emulate", NULL, CLI_FLAG, &flags.emulate, 0, 0, NULL, "Kernels",
     "run the kernels on the CPU, in the emulator: errors, no times [where there is no GPU]"},
    {"check", NULL, CLI_FLAG, &flags.check, 0, 0, NULL, "Kernels",
     "errors, no times: for tools under which times mean nothing"},
    {"kernel", "N", CLI_INT, &flags.kernel, 0, 11, "0", "Kernels", "only kernel N; 0: all"},
    {"format", "NAME", CLI_TEXT, &flags.format, 1, 0, NULL, "Kernels",
     "only this weight format, e.g. int4-g128 [all]"},
    {"shape", "NxK", CLI_TEXT, &flags.shape, 3, 0, NULL, "Kernels",
     "rows and columns of the matrix [several on a GPU, 80x512 in the emulator]"},
    {"batch", "M", CLI_TEXT, &flags.batch, 1, 0, NULL, "Kernels",
     "rows of x, joined by ',' [1 and more]"},
};

static const struct cli_program program = {
    .name = "phase6",
    .phase = 6,
    .summary = "CUDA kernels from naive to the memory limit, on a GPU or in an emulator.",
    .examples = "./phase6                                        every kernel, checked and timed\n"
                "./phase6 --emulate                              checked, on any machine\n"
                "./phase6 --emulate --kernel 8 --format int4-g128 --batch 1,16\n"
                "./phase6 --shape 8192x8192 --batch 1,2,4,8,16,32,64 --csv results/kernels.csv\n",
    .without = "gpu-layers",
    .flags = phase_flags,
    .n_flags = sizeof phase_flags / sizeof *phase_flags,
};

// What is measured when the flags leave it open. In the order of the table.
static const struct plan {
    bool gpu;
    int first; // kernels from this number on
    unsigned n, k;
    const char *batch, *formats; // "": all
} plans[] = {
    {false, 1, 80, 512, "1", ""},
    {false, 8, 80, 512, "9,70", "f16,int8,int4-g128,int4-g32"},
    {true, 1, 8192, 8192, "1", ""},
    {true, 7, 16384, 8192, "1", "int4-g128"},
    {true, 7, 81920, 8192, "1", "int4-g128"},
    {true, 8, 8192, 8192, "2,4,8,16,32,64,128,256,512,2048", "int4-g128,int8"},
};

// Shapes where float16 through cuBLAS (kernel 1) stands beside the others.
static bool is_yardstick(const struct plan *p, const struct cuda_kernel *kernel,
                         const char *format) {
    return p->gpu && kernel->number == 1 && strcmp(format, "f16") == 0;
}

// Whether a list "a,b,c" has the word; an empty list has every word.
static bool listed(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == length && strncmp(p, word, length) == 0)
            return true;
    return !*list;
}

static bool wanted(const struct plan *p, const struct cuda_kernel *kernel, const char *format) {
    if (flags.kernel && kernel->number != flags.kernel)
        return false;
    if (flags.format && strcmp(flags.format, format) != 0)
        return false;
    bool planned = kernel->number >= (flags.kernel || flags.shape ? 1 : p->first) &&
                   (flags.format || listed(p->formats, format));
    return planned || (!flags.kernel && is_yardstick(p, kernel, format));
}

static bool add_row(struct lab *lab, const struct bench *b, const struct cuda_kernel *kernel,
                    const char *format, const struct bench_matrix *w, unsigned m,
                    struct error *err) {
    char config[96], shape[48] = "", variant[16] = "", rows[16] = "";
    if (b->copy_gb_s > 0)
        snprintf(shape, sizeof shape, " %ux%u", w->sample.w.n, w->sample.w.k);
    if (*kernel->variant)
        snprintf(variant, sizeof variant, " (%s)", kernel->variant);
    if (m > 1)
        snprintf(rows, sizeof rows, " m=%u", m);
    snprintf(config, sizeof config, "kernel %d%s %s%s%s", kernel->number, variant, format, shape,
             rows);
    if (lab->options.config && strcmp(lab->options.config, config) != 0)
        return true;
    struct result_row row;
    result_row_init(&row, config, format);
    bool ok = bench_row(b, kernel, w, m, &row, err);
    return ok ? result_table_add(&lab->table, &row, err) : (result_row_free(&row), false);
}

// All kernels on one matrix.
static bool run_matrix(struct lab *lab, const struct bench *b, const struct plan *p,
                       const char *format, unsigned n, unsigned k, struct error *err) {
    struct bench_matrix w;
    bool any = false, ok = true;
    for (const struct cuda_kernel *const *kernel = b->backend->kernels; *kernel; kernel++)
        any |= wanted(p, *kernel, format);
    if (!any)
        return true;
    if (!bench_matrix_init(&w, format, n, k, err))
        return flags.shape && !flags.format; // a shape that the format's blocks do not divide
    const char *batch = flags.batch ? flags.batch : p->batch;
    while (ok && *batch) {
        unsigned m = (unsigned)strtoul(batch, NULL, 10);
        batch += strcspn(batch, ",");
        batch += *batch == ',';
        for (const struct cuda_kernel *const *kernel = b->backend->kernels; ok && *kernel; kernel++)
            if (wanted(p, *kernel, format) && (*kernel)->takes(&w.sample.w, m))
                ok = add_row(lab, b, *kernel, format, &w, m, err);
    }
    bench_matrix_free(&w);
    return ok;
}

static bool run_plan(struct lab *lab, const struct bench *b, const struct plan *p, unsigned n,
                     unsigned k, struct error *err) {
    struct progress progress;
    progress_start(&progress, "kernels", "formats");
    size_t total = 0, done = 0;
    bool ok = true;
    while (cuda_sample_formats[total])
        total++;
    for (; ok && done < total; done++) {
        progress_update(&progress, done, total, cuda_sample_formats[done]);
        ok = run_matrix(lab, b, p, cuda_sample_formats[done], n, k, err);
    }
    progress_finish(&progress);
    return ok;
}

// ---- the command line --------------------------------------------------------------------------

static void parse_shape(unsigned *n, unsigned *k) {
    if (!cli_shape(flags.shape, n, k))
        cli_usage_error(&program, "--shape is '%s', expected rows x columns, as 8192x8192",
                        flags.shape);
}

static void check_flags(void) {
    bool known = !flags.format;
    for (size_t i = 0; cuda_sample_formats[i]; i++)
        known |= flags.format && strcmp(flags.format, cuda_sample_formats[i]) == 0;
    if (!known)
        cli_usage_error(&program, "--format is '%s', which the kernels do not read", flags.format);
    for (const char *p = flags.batch; p && *p;) {
        char *end;
        unsigned long m = strtoul(p, &end, 10);
        if (m == 0 || m > 4096 || (*end && *end != ',') || (*end == ',' && !end[1]))
            cli_usage_error(&program, "--batch is '%s', expected numbers from 1 to 4096, as 1,8,64",
                            flags.batch);
        p = end + (*end == ',');
    }
}

// The GPU, if there is one; the emulator where it is asked for or nothing else is there.
static const struct cuda_backend *choose_backend(bool must_be_gpu, struct error *err) {
    const char *why;
    const struct cuda_backend *gpu = flags.emulate ? NULL : cuda_device(&why);
    if (gpu || flags.emulate)
        return gpu ? gpu : &cuda_emulator;
    if (must_be_gpu) {
        error_set(err, "--device cuda: %s; --emulate runs the kernels without one", why);
        return NULL;
    }
    cli_warn(&program, "%s: running in the emulator, errors only", why);
    return &cuda_emulator;
}

// The row that of_limit refers to.
static bool add_limit(struct lab *lab, const struct bench *b, struct error *err) {
    struct result_row row;
    if (b->copy_gb_s <= 0 || lab->options.config)
        return true;
    result_row_init(&row, "memory copy", "");
    row.gb_s = b->copy_gb_s;
    row.of_limit = 1;
    return result_table_add(&lab->table, &row, err);
}

static bool run_plans(struct lab *lab, const struct bench *b, struct error *err) {
    bool gpu = b->copy_gb_s > 0, ok = add_limit(lab, b, err);
    for (size_t i = 0; ok && i < sizeof plans / sizeof *plans; i++) {
        const struct plan *p = &plans[i];
        unsigned n = p->n, k = p->k;
        if (p->gpu != gpu)
            continue;
        if (flags.shape)
            parse_shape(&n, &k);
        ok = run_plan(lab, b, p, n, k, err);
        if (flags.shape || flags.batch) // one plan, with what the flags say in its place
            break;
    }
    return ok;
}

// What the results depend on, the command among it, as it is after the work: clocks are up then.
static void name_device(struct bench *b, char **argv, char *out, size_t size) {
    struct cuda_description d = b->device;
    if (!b->backend->time) {
        snprintf(out, size, "emulator");
        return;
    }
    b->backend->describe(&d);
    int n = snprintf(out, size, "%s; driver %s; SM %u MHz; memory %u MHz; data sheet %.0f GB/s;",
                     d.device, d.driver, d.sm_mhz, d.memory_mhz, d.limit_gb_s);
    for (; *argv && n >= 0 && (size_t)n < size; argv++)
        n += snprintf(out + n, size - (size_t)n, " %s", *argv);
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct lab lab = {.program = &program};
    struct bench bench;
    char device[1024];
    cli_parse(&program, argc, argv, &lab.options);
    check_flags();
    progress_set_quiet(lab.options.quiet);
    const struct cuda_backend *backend = choose_backend(lab.options.cuda, &err);
    bool ok =
        backend && bench_init(&bench, backend, !flags.check, &err) && run_plans(&lab, &bench, &err);
    if (ok) {
        name_device(&bench, argv, device, sizeof device);
        lab.table.phase = program.phase;
        lab.table.device = device;
        lab.table.isa = NULL;
        if (!lab.table.n_rows)
            ok = error_set(
                &err,
                "no kernel of that number for this device reads that format, shape and batch");
    }
    if (!lab_close(&lab, ok, &err))
        cli_fail(&program, &err);
    return 0;
}
