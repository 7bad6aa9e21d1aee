rule reduce_observation:
    input:
        unpack(dl3_files),
    output:
        dataset=f"{results}/{{analysis}}/dl4/{{reduction}}/{{obs_id}}.h5",
    log:
        f"{results}/logs/reduce_observation/{{analysis}}/{{reduction}}/{{obs_id}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        options=lambda w: reduction_of(w).jobs[int(w.obs_id)].options,
        code=lambda w: reduction_of(w).jobs[int(w.obs_id)].code,
    message:
        "Reduce observation {wildcards.obs_id} to {wildcards.analysis}/{wildcards.reduction}"
    shell:
        "python -m dl3flow reduce_observation --input events {input.events:q} --input responses {input.responses:q}"
        " --input mask {input.mask:q} --input off {input.off:q} --input off_responses {input.off_responses:q}"
        " --input models {input.models:q} --input plugins {input.plugins:q} --input model_files {input.model_files:q}"
        " --output dataset {output.dataset:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule model_background:
    input:
        unpack(dl3_files),
    output:
        models=f"{results}/{{analysis}}/dl4/{{reduction}}/background.fits",
    log:
        f"{results}/logs/model_background/{{analysis}}/{{reduction}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        options=lambda w: reduction_of(w).further.model.options,
        code=lambda w: reduction_of(w).further.model.code,
    message:
        "Build the background models of {wildcards.analysis}/{wildcards.reduction}"
    shell:
        "python -m dl3flow model_background --input off {input.off:q} --input off_responses {input.off_responses:q}"
        " --input mask {input.mask:q} --output models {output.models:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule export_ogip:
    input:
        unpack(dl4_files),
    output:
        ogip=directory(f"{results}/{{analysis}}/dl4/{{reduction}}/ogip"),
    log:
        f"{results}/logs/export_ogip/{{analysis}}/{{reduction}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
        on_error=lambda w: plan.analyses[w.analysis].on_error,
    params:
        options=lambda w: reduction_of(w).ogip.options,
        code=lambda w: reduction_of(w).ogip.code,
    message:
        "Write the spectra of {wildcards.analysis}/{wildcards.reduction} as OGIP files"
    shell:
        "python -m dl3flow export_ogip --input datasets {input.datasets:q} --output ogip {output.ogip:q}"
        " --setting on_error={resources.on_error:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule stack_observations:
    input:
        unpack(dl4_files),
    output:
        dataset=f"{results}/{{analysis}}/dl4/{{reduction}}/stacked.fits",
    log:
        f"{results}/logs/stack_observations/{{analysis}}/{{reduction}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
        on_error=lambda w: plan.analyses[w.analysis].on_error,
    params:
        options=lambda w: reduction_of(w).stack.options,
        code=lambda w: reduction_of(w).stack.code,
    message:
        "Stack {wildcards.analysis}/{wildcards.reduction}"
    shell:
        "python -m dl3flow stack_observations --input datasets {input.datasets:q} --output dataset {output.dataset:q}"
        " --setting on_error={resources.on_error:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"
