{#- The reactor that people have had on their masters for years. It knows no metadata and no queue, and the agent
    must work with it as it stands. -#}
{% set postdata = data.get('post', {}) %}
run_state:
  local.state.sls:
    - tgt: {{ postdata.tgt }}
    {% if "matcher" in postdata %}
    - tgt_type: {{ postdata.matcher }}
    {% endif %}
    {% if "args" in postdata %}
    - arg:
      - {{ postdata.args }}
    {% endif %}
