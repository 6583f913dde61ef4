{#- Runs the states that heat-salt-bootstrap asks for. In the master's configuration:

      reactor:
        - salt/netapi/hook/states/state:
          - /srv/reactor/states.sls

    Every field is quoted, so no value can become YAML of its own. Anybody with a live salt-api
    session can fire this hook: it runs what it is told on whom it is told.

    The bootstrap id goes along twice: as metadata, for whoever looks for the job on the master, and
    as an argument, since a job that has to queue loses its metadata. -#}
{% set post = data.get('post', {}) %}
{% if post is mapping and post.get('tgt') and post.get('args') %}
heat_salt_bootstrap_states:
  local.state.sls:
    - tgt: {{ post['tgt'] | string | json }}
    - tgt_type: {{ post.get('tgt_type', post.get('matcher', 'list')) | string | json }}
    - arg:
      - {{ post['args'] | string | json }}
    - kwarg:
        queue: true
        bootstrap_id: {{ post.get('bootstrap_id', '') | string | json }}
{%- if post.get('pillar') is mapping %}
        pillar: {{ post['pillar'] | json }}
{%- endif %}
    - metadata:
        bootstrap_id: {{ post.get('bootstrap_id', '') | string | json }}
{% endif %}
