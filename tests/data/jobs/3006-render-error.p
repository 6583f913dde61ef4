‡§successÂ¦return‘ÚÔRendering SLS 'base:render' failed: Jinja error: division by zero
Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/utils/templates.py", line 480, in render_jinja_tmpl
    output = template.render(**decoded_context)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/salt/lib/python3.11/site-packages/jinja2/environment.py", line 1295, in render
    self.environment.handle_exception()
  File "/opt/salt/lib/python3.11/site-packages/jinja2/environment.py", line 942, in handle_exception
    raise rewrite_traceback_stack(source=source)
  File "<template>", line 1, in top-level template code
ZeroDivisionError: division by zero

; line 1

---
broken: {{ 1/0 }}    <======================

Traceback (most recent call last):
  File "/opt/salt/lib/python3.11/site-packages/salt/utils/templates.py", line 480, in render_jinja_tmpl
    output = template.render(**decoded_context)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
[...]
---§retcode£jid´20261122222647518769£fun©state.sls¨fun_args‘¦render¤user¤root