#include "lab/gpu.h"

#include "cuda/placement.h"

bool gpu_open(struct lab *lab, struct error *err) {
    const char *why = "";
    struct cuda_description d;
    lab->gpu = lab->options.emulate ? &cuda_emulator : cuda_device(&why);
    if (!lab->gpu)
        return error_set(err, "--device cuda: %s; --emulate runs its kernels on the CPU", why);
    if ((why = lab->gpu->describe(&d)))
        return error_set(err, "--device cuda: %s", why);
    snprintf(lab->gpu_name, sizeof lab->gpu_name, "cuda (%s)", d.device);
    lab->table.device = lab->gpu_name;
    lab->table.isa = NULL;
    return true;
}

bool gpu_place(struct lab *lab, struct model *m, const char *config, struct error *err) {
    const struct cli_options *o = &lab->options;
    const struct cuda_options options = {.backend = lab->gpu,
                                         .layers = o->gpu_layers ? o->gpu_layers : SIZE_MAX,
                                         .positions = o->ctx};
    struct cuda_report report;
    if (!cuda_place(m, &options, &report, err))
        return false;
    if (report.to_float16)
        cli_warn(lab->program,
                 "%s: no kernel of the GPU reads %s; %zu matrices are float16 there, and larger",
                 config, report.example, report.to_float16);
    return true;
}

void gpu_leave(struct lab *lab, struct model *m, struct result_row *row) {
    size_t peak = cuda_peak_bytes(m);
    if (peak)
        row->vram_bytes = (double)peak;
    if (m == lab->model)
        cuda_keep_head(m);
    else
        model_detach(m);
}
