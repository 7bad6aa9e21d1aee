rule fit_datasets:
    input:
        unpack(dl4_files),
    output:
        fit=f"{results}/{{analysis}}/dl5/{{fit}}/fit.json",
        models=f"{results}/{{analysis}}/dl5/{{fit}}/models.yaml",
        covariance=f"{results}/{{analysis}}/dl5/{{fit}}/models_covariance.dat",
    log:
        f"{results}/logs/fit_datasets/{{analysis}}/{{fit}}.log",
    conda:
        "../envs/dl3flow.yaml"
    threads: lambda w, input: min(4, 1 + len(input.datasets) // 8)
    resources:
        mem_mb=4000,
        runtime=60,
        on_error=lambda w: plan.analyses[w.analysis].on_error,
    params:
        options=lambda w: plan.analyses[w.analysis].fits[w.fit].job.options,
        code=lambda w: plan.analyses[w.analysis].fits[w.fit].job.code,
    message:
        "Fit {wildcards.analysis}/{wildcards.fit}"
    shell:
        "python -m dl3flow fit_datasets --input datasets {input.datasets:q} --input external {input.external:q}"
        " --input plugins {input.plugins:q} --input model_files {input.model_files:q}"
        " --output fit {output.fit:q} --output models {output.models:q} --output covariance {output.covariance:q}"
        " --setting on_error={resources.on_error:q} --setting threads={threads}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule measure_slice:
    input:
        unpack(slice_files),
    output:
        slice=f"{results}/{{analysis}}/dl5/{{estimator}}/bins/{{slice}}.json",
    log:
        f"{results}/logs/measure_slice/{{analysis}}/{{estimator}}/{{slice}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        step=lambda w: plan.analyses[w.analysis].estimators[w.estimator].slices[w.slice].step,
        options=lambda w: plan.analyses[w.analysis].estimators[w.estimator].slices[w.slice].job.options,
        code=lambda w: plan.analyses[w.analysis].estimators[w.estimator].slices[w.slice].job.code,
    message:
        "Measure bin {wildcards.slice} of {wildcards.analysis}/{wildcards.estimator}"
    shell:
        "python -m dl3flow {params.step} --input datasets {input.datasets:q} --input fit {input.fit:q}"
        " --input events {input.events:q} --input responses {input.responses:q} --input mask {input.mask:q}"
        " --input off {input.off:q} --input off_responses {input.off_responses:q} --input models {input.models:q}"
        " --input plugins {input.plugins:q} --input model_files {input.model_files:q}"
        " --output slice {output.slice:q} --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule estimate_table:
    input:
        unpack(dl4_files),
    output:
        table=f"{results}/{{analysis}}/dl5/{{estimator}}.ecsv",
    log:
        f"{results}/logs/estimate_table/{{analysis}}/{{estimator}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
        on_error=lambda w: plan.analyses[w.analysis].on_error,
    params:
        step=lambda w: plan.analyses[w.analysis].estimators[w.estimator].step,
        options=lambda w: plan.analyses[w.analysis].estimators[w.estimator].job.options,
        code=lambda w: plan.analyses[w.analysis].estimators[w.estimator].job.code,
    message:
        "Estimate {wildcards.analysis}/{wildcards.estimator}"
    shell:
        "python -m dl3flow {params.step} --input datasets {input.datasets:q} --input external {input.external:q} --input fit {input.fit:q}"
        " --input plugins {input.plugins:q} --input model_files {input.model_files:q}"
        " --input events {input.events:q} --input responses {input.responses:q} --input slices {input.slices:q}"
        " --output table {output.table:q} --setting on_error={resources.on_error:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule estimate_map:
    input:
        unpack(dl4_files),
    output:
        map=f"{results}/{{analysis}}/dl5/{{estimator}}.fits",
    log:
        f"{results}/logs/estimate_map/{{analysis}}/{{estimator}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=lambda w: plan.analyses[w.analysis].estimators[w.estimator].job.options,
        code=lambda w: plan.analyses[w.analysis].estimators[w.estimator].job.code,
    message:
        "Estimate {wildcards.analysis}/{wildcards.estimator}"
    shell:
        "python -m dl3flow estimate_map --input datasets {input.datasets:q} --input external {input.external:q} --input fit {input.fit:q}"
        " --input plugins {input.plugins:q} --input model_files {input.model_files:q}"
        " --output map {output.map:q} --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"
