{#- The worked example: memcached of the distribution's 1.4 line or later, with a configuration of ours, running. To be laid
    into /srv/salt/. What a VM may want otherwise comes as pillar with the hook:

      "apply": {"states": ["memcached_v14"], "pillar": {"memcached": {"memory": 256}}} -#}
{% set wanted = salt['pillar.get']('memcached', {}) %}
{% set memory = wanted.get('memory', 64) | int %}
{% set port = wanted.get('port', 11211) | int %}
{% set listen = wanted.get('listen', '127.0.0.1') %}
{% set debian = grains['os_family'] == 'Debian' %}

memcached:
  pkg.installed: []
  file.managed:
    - name: {{ '/etc/memcached.conf' if debian else '/etc/sysconfig/memcached' }}
    - mode: '0644'
    - contents:
{%- if debian %}
      - -d
      - -u memcache
      - -m {{ memory }}
      - -p {{ port }}
      - {{ ('-l ' ~ listen) | json }}
{%- else %}
      - PORT="{{ port }}"
      - USER="memcached"
      - MAXCONN="1024"
      - CACHESIZE="{{ memory }}"
      - {{ ('OPTIONS="-l ' ~ listen ~ '"') | json }}
{%- endif %}
    - require:
      - pkg: memcached
  service.running:
    - enable: true
    - watch:
      - file: memcached
