rule simulate_dl3:
    input:
        responses=lambda w: plan.sources[w.data].inputs.get("responses", []),
        plugins=lambda w: plan.sources[w.data].inputs.get("plugins", []),
        model_files=lambda w: plan.sources[w.data].inputs.get("model_files", []),
    output:
        events=f"{results}/dl3/{{data}}/data/{{obs_id}}.fits.gz",
    log:
        f"{results}/logs/simulate_dl3/{{data}}/{{obs_id}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        options=lambda w: plan.sources[w.data].simulations[int(w.obs_id)].options,
        code=lambda w: plan.sources[w.data].simulations[int(w.obs_id)].code,
    message:
        "Simulate observation {wildcards.obs_id} of {wildcards.data}"
    shell:
        "python -m dl3flow simulate_dl3 --input responses {input.responses:q} --input plugins {input.plugins:q}"
        " --input model_files {input.model_files:q} --output events {output.events:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule index_dl3:
    output:
        observations=f"{results}/dl3/{{data}}/obs-index.fits.gz",
        hdus=f"{results}/dl3/{{data}}/hdu-index.fits.gz",
    log:
        f"{results}/logs/index_dl3/{{data}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        options=lambda w: plan.sources[w.data].index.options,
        code=lambda w: plan.sources[w.data].index.code,
    message:
        "Write the index of {wildcards.data}"
    shell:
        "python -m dl3flow index_dl3 --output observations {output.observations:q} --output hdus {output.hdus:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule select_observations:
    input:
        unpack(dl4_files),
    output:
        observations=f"{results}/{{analysis}}/observations.ecsv",
    log:
        f"{results}/logs/select_observations/{{analysis}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
        on_error=lambda w: plan.analyses[w.analysis].on_error,
    params:
        options=lambda w: plan.analyses[w.analysis].selection.options,
        code=lambda w: plan.analyses[w.analysis].selection.code,
    message:
        "List the observations of {wildcards.analysis}"
    shell:
        "python -m dl3flow select_observations --input datasets {input.datasets:q}"
        " --output observations {output.observations:q} --setting on_error={resources.on_error:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"
