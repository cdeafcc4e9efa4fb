#!/usr/bin/env bash
# A Flink cluster on this machine, as a trial and for tests: one JobManager and two TaskManagers, from packages alone.
#
#   deploy/flink/cluster.sh install|start|stop|jobmanager|taskmanager [FOLDER]
#
# The last two start one more, as what watches over a cluster does where one has died.
# FOLDER (build/flink) holds Flink, Beam's job server, and what they log. Java 11 or 17, Maven and pip are needed.
# FLINK_PORT (8081) is where the JobManager answers; PYTHON what packages are installed with.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=${2:-$here/../../build/flink}
mkdir -p "$to" && to=$(cd "$to" && pwd)
version=1.19.3
port=${FLINK_PORT:-8081}
python=${PYTHON:-$(command -v python3)}
export FLINK_CONF_DIR="$to/conf" FLINK_LOG_DIR="$to/log" FLINK_PID_DIR="$to/pid"
flink="$to/flink-$version"
settings=(
  -D "rest.port=$port"
  -D "io.tmp.dirs=$to/tmp" # what lies between stages: originals
  -D taskmanager.numberOfTaskSlots=1
  -D taskmanager.memory.process.size=2200m
  -D taskmanager.memory.network.min=256m # each stage that ends on disk takes 16 MiB of it while it runs
  -D taskmanager.memory.managed.size=256m
  -D taskmanager.memory.task.off-heap.size=512m # what goes to workers and comes from them, and what Beam leaves of each job
  -D taskmanager.jvm-exit-on-oom=true # else what was lost by it is waited for forever
  -D jobmanager.memory.process.size=1g
  -D restart-strategy.type=fixed-delay # of a job whose TaskManager or worker died
  -D restart-strategy.fixed-delay.attempts=5
  -D "restart-strategy.fixed-delay.delay=2 s"
  -D heartbeat.timeout=15000
  -D heartbeat.interval=3000
)

install() {
  if [ ! -x "$flink/bin/jobmanager.sh" ]; then
    rm -rf "$to/packages" "$flink"
    # The scripts and the jars of a distribution, as PyPI has them; what they ask of Python isn't needed.
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$to/packages/scripts" "apache-flink==$version"
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$to/packages/jars" "apache-flink-libraries==$version"
    mv "$to/packages/scripts/pyflink" "$flink.part"
    cp -r "$to/packages/jars/pyflink/"{lib,opt,plugins} "$flink.part/"
    cp "$to/packages/jars/pyflink/bin/"* "$flink.part/bin/"
    chmod +x "$flink.part/bin/"*
    rm -rf "$to/packages"
    mv "$flink.part" "$flink"
  fi
  [ -f "$to/job-server.jar" ] && [ -z "$(find "$here"/../job-server* -newer "$to/job-server.jar")" ] ||
    mvn -q -B -f "$here/../job-server.xml" -P flink package -Dto="$to"
}

start() {
  stop
  mkdir -p "$FLINK_CONF_DIR" "$FLINK_LOG_DIR" "$FLINK_PID_DIR" "$to/tmp" && chmod 700 "$to/tmp"
  cp "$flink/conf/"* "$FLINK_CONF_DIR/"
  jobmanager
  taskmanager
  taskmanager
  for _ in $(seq 60); do
    if curl -sf "localhost:$port/overview" | grep -q '"taskmanagers":2'; then
      echo "A Flink cluster of two TaskManagers is at http://localhost:$port"
      return
    fi
    sleep 1
  done
  echo "The cluster doesn't come up: $FLINK_LOG_DIR tells why" >&2
  exit 1
}

jobmanager() {
  "$flink/bin/jobmanager.sh" start "${settings[@]}" >/dev/null
}

taskmanager() {
  "$flink/bin/taskmanager.sh" start "${settings[@]}" >/dev/null
}

stop() {
  [ -d "$FLINK_PID_DIR" ] || return 0
  "$flink/bin/taskmanager.sh" stop-all >/dev/null 2>&1 || true
  "$flink/bin/jobmanager.sh" stop-all >/dev/null 2>&1 || true
}

case "${1:-}" in
install) install ;;
start) install && start ;;
stop) stop ;;
jobmanager | taskmanager) "$1" ;;
*)
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
