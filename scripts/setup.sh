#!/usr/bin/env bash
# Installs and fetches what a target of the Makefile needs, and nothing that is there already. Quick when nothing is missing.
#
#   scripts/setup.sh build     a C toolchain, for librdkafka and OpenSSL (`make demo`)
#   scripts/setup.sh demo-postgres   also a Postgres server with pgbench (`make demo-postgres`)
#   scripts/setup.sh lint      rustfmt and clippy
#   scripts/setup.sh test      also a Java runtime and Apache Kafka, PostgreSQL, Python with the readers, and Node with a server that answers
#                              as Azure does (`make test`)
#   scripts/setup.sh bench     also Kafka Connect with Debezium, some 40 MB (`make bench`)
#   scripts/setup.sh spark     also Spark with Delta Lake, some 600 MB (`make test-spark`)
#
# Everything that is fetched lies in $ALLUVIUM_CACHE, by default ~/.cache/alluvium; remove the folder to start anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export ALLUVIUM_CACHE="${ALLUVIUM_CACHE:-$HOME/.cache/alluvium}"

main() {
  mkdir -p "$ALLUVIUM_CACHE"
  # One at a time: two makes would write into the same folders.
  exec 9>"$ALLUVIUM_CACHE/setup.lock"
  flock 9
  case "${1:-}" in
    build) build ;;
    demo-postgres) build; postgres_server ;;
    lint) build; lint ;;
    test) small_disks; build; kafka; postgres; readers; azurite ;;
    bench) build; kafka; postgres; readers; debezium ;;
    spark) build; java; spark ;;
    *) sed -n '2,12s/^# \{0,1\}//p' setup.sh >&2; exit 64 ;;
  esac
}

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }

# need 'test that holds when it is there' PACKAGE...: installs Debian packages when the test fails.
need() {
  local test=$1; shift
  eval "$test" > /dev/null 2>&1 && return
  have apt-get || fail "please install what Debian calls: $*"
  local root=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2> /dev/null || fail "please run: sudo apt-get install $*"
    root=(sudo -n)
  fi
  say "installing $*"
  # The lists are fetched once a run: an old list names packages that are gone.
  [ -n "${lists_are_fresh:-}" ] || "${root[@]}" apt-get update -qq
  lists_are_fresh=yes
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
  eval "$test" > /dev/null 2>&1 || fail "installed $*, but this still fails: $test"
}

build() {
  have cargo || fail "a Rust toolchain is needed: cargo is not on the PATH"
  need 'have cc && have c++ && have make' build-essential
  need 'have perl' perl # OpenSSL's own build asks for it.
}

lint() {
  cargo fmt --version > /dev/null 2>&1 || { say "installing rustfmt"; rustup component add rustfmt; }
  cargo clippy --version > /dev/null 2>&1 || { say "installing clippy"; rustup component add clippy; }
}

# Tests of full disks mount small ones, each in a namespace of its own. Whoever may not do that is told before all else.
small_disks() {
  need 'have unshare && have mount' util-linux mount
  local user=
  unshare --mount true 2> /dev/null || user=--map-root-user
  unshare $user --mount mount -t tmpfs tmpfs "$ALLUVIUM_CACHE" 2> /dev/null || fail "the tests mount small disks, which may not be done here: run them \
as root with the right CAP_SYS_ADMIN (a container has it with --cap-add SYS_ADMIN), or where users may make namespaces of their own (sysctl \
kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0)"
}

java() {
  need 'java_is_new_enough' default-jre-headless
  need 'have mvn' maven
}

# Kafka 4 and Spark 4 want Java 17.
java_is_new_enough() {
  local version
  version=$(command java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  [ "${version:-0}" -ge 17 ]
}

kafka() {
  java
  ./fetch-kafka.sh
}

# Debian's server with pgbench.
postgres_server() {
  need 'compgen -G "/usr/lib/postgresql/*/bin/pgbench"' postgresql postgresql-contrib
  need 'have python3' python3
}

# That, and other versions beside it.
postgres() {
  postgres_server
  need 'have openssl' openssl
  need 'have unzip && have xz' unzip xz-utils
  need 'have localedef && [ -e /usr/share/i18n/locales/ja_JP ]' locales # A server's country decides how it writes money.
  java
  ./fetch-postgres.sh > /dev/null
}

readers() {
  environment venv requirements.txt
}

# Azure's own stand-in for its store. Later versions want a newer Node than Debian's, and bring three times as much.
azurite() {
  local version=3.33.0 folder=$ALLUVIUM_CACHE/azurite
  need 'have node' nodejs
  [ "$(cat "$folder/fetched" 2> /dev/null)" = "$version" ] && return
  need 'have npm' npm
  say "fetching Azurite $version"
  rm -rf "$folder"
  npm install --loglevel=error --no-audit --no-fund --no-package-lock --ignore-scripts --prefix "$folder" "azurite@$version" > /dev/null
  echo "$version" > "$folder/fetched" # Last: it says that the folder is whole.
}

spark() {
  environment venv requirements.txt # Spark's tests compare it with the other readers.
  environment spark/venv requirements-spark.txt
  jars spark-pom.xml spark/jars
}

debezium() {
  jars debezium-pom.xml debezium
}

# jars POM FOLDER: a folder with exactly what this project of Maven copies there.
jars() {
  local folder=$ALLUVIUM_CACHE/$2
  cmp -s "$1" "$folder/pom.xml" && return
  say "fetching what $1 names"
  rm -rf "$folder"
  mvn -B -ntp -q -f "$1" -Dout="$folder" -Dmaven.repo.local="$ALLUVIUM_CACHE/m2" package
  cp "$1" "$folder/pom.xml" # Last: it says that the folder is whole.
}

# environment FOLDER REQUIREMENTS: a Python environment with exactly these packages.
environment() {
  local folder=$ALLUVIUM_CACHE/$1
  cmp -s "$2" "$folder/requirements.txt" && return
  need 'python_is_new_enough' python3
  need 'python3 -c "import ensurepip, venv"' python3-venv
  say "making the Python environment $folder"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$2"
  cp "$2" "$folder/requirements.txt" # Last: it says that the environment is whole.
}

python_is_new_enough() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'
}

main "$@"
