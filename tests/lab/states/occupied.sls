# Somebody else's run, which is under way until there is a file `go-on` below the minion's root_dir, or that directory is gone.
occupied:
  cmd.run:
    - name: until [ -e {{ opts['root_dir'] }}/go-on ] || [ ! -e {{ opts['root_dir'] }} ]; do sleep 0.1; done
