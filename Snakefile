# `snakemake` in this folder runs the analyses that config/config.yaml names.
include: "workflow/Snakefile"


rule all:
    default_target: True
    input:
        rules.targets.input,
