# Renders to something that is no YAML.
a:
  file.managed:
   - name: /x
  b: [
