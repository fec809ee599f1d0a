# A daemon for the cram tests, to be sourced: start_daemon MODEL ... sets SIDECAML_SOCKET; stop_daemon ends it.

start_daemon() {
    : "${SIDECAML_PYTHON:?set it to the Python that has the requirements of the daemon, as make test does}"
    daemon_folder=$(mktemp -d)
    "$SIDECAML_PYTHON" "$SERVE" "$daemon_folder" "$@" >"$daemon_folder/daemon.log" 2>&1 &
    daemon_pid=$!
    export SIDECAML_SOCKET="$daemon_folder/sidecaml.sock"
    for _ in $(seq 3000); do
        grep -qs 'ready: ' "$daemon_folder/daemon.log" && return
        kill -0 "$daemon_pid" 2>/dev/null || break
        sleep 0.1
    done
    cat "$daemon_folder/daemon.log"
    return 1
}

stop_daemon() {
    kill "$daemon_pid"
    wait "$daemon_pid" || cat "$daemon_folder/daemon.log"
    rm -r "$daemon_folder"
}
