# Does not render: Jinja stops at the division.
broken: {{ 1/0 }}
