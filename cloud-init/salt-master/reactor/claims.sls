{#- Hands the claims of VMs to the runner that decides them. In the master's configuration:

      reactor:
        - salt/netapi/hook/heat-salt-bootstrap/*:
          - /srv/reactor/claims.sls

    Nothing of the event becomes YAML or Jinja: its body travels as Base64, and the verb is one of three words. -#}
{% set verb = tag.split('/')[-1] %}
{% if verb in ('enroll', 'apply', 'deregister') %}
heat_salt_bootstrap_claim:
  runner.heat_salt_bootstrap.decide:
    - args:
      - verb: {{ verb }}
      - claim: {{ data.get('post', {}) | json | base64_encode }}
{% endif %}
