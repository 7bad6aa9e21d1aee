rule plot_product:
    input:
        unpack(picture_files),
    output:
        svg=f"{results}/{{analysis}}/plots/{{name}}.svg",
        png=f"{results}/{{analysis}}/plots/{{name}}.png",
    log:
        f"{results}/logs/plot_product/{{analysis}}/{{name}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=lambda w: plan.analyses[w.analysis].pictures[w.name].plot.options,
        code=lambda w: plan.analyses[w.analysis].pictures[w.name].plot.code,
    message:
        "Plot {wildcards.analysis}/{wildcards.name}"
    shell:
        "python -m dl3flow plot_product --input product {input.product:q} --input fit {input.fit:q}"
        " --input plugins {input.plugins:q} --input model_files {input.model_files:q}"
        " --output svg {output.svg:q} --output png {output.png:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule summarise:
    input:
        unpack(report_files),
    output:
        report=f"{results}/{{analysis}}/report.html",
    log:
        f"{results}/logs/summarise/{{analysis}}.log",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=lambda w: plan.analyses[w.analysis].report.options,
        code=lambda w: plan.analyses[w.analysis].report.code,
    message:
        "Write the report of {wildcards.analysis}"
    shell:
        "python -m dl3flow summarise --input observations {input.observations:q} --input fits {input.fits:q}"
        " --input tables {input.tables:q} --input maps {input.maps:q} --input plots {input.plots:q}"
        " --input plugins {input.plugins:q} --input model_files {input.model_files:q} --output report {output.report:q}"
        " --options - --code {params.code:q} > {log:q} 2>&1 <<< {params.options:q}"


rule plot_observation:
    input:
        unpack(observation_files),
    output:
        f"{results}/peeks/{{data}}/{{obs_id}}.{{kind}}",
    log:
        f"{results}/logs/plot_observation/{{data}}/{{obs_id}}_{{kind}}.log",
    wildcard_constraints:
        kind="svg|png",
    conda:
        "../envs/dl3flow.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=lambda w: digest("plot_product", "dl3flow.io.gadf_file", "dl3flow.plots.observation"),
    message:
        "Draw observation {wildcards.obs_id} of {wildcards.data}"
    shell:
        "python -m dl3flow inspect {input.events:q} --plot {output:q} > {log:q} 2>&1"
