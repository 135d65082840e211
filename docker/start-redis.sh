#!/bin/sh
# Writes the server's ACL file, users.acl with the passwords' hashes in it, and becomes the Redis server that reads it:
#   start-redis.sh OPTION…          (options of redis-server)
# HEADRACE_NAMESPACE      comes before every pattern of keys and channels but RQ's (default: none)
# HEADRACE_REDIS_SERVER   the server program (default: redis-server)
# HEADRACE_SECRETS_DIR    where the passwords are, a file redis-<user> for each (default: /run/secrets)
# HEADRACE_USERS_FILE     the users (default: users.acl beside this script)
# HEADRACE_ACL_FILE       the file to write, best on a tmpfs (default: /tmp/users.acl)
set -eu

namespace=${HEADRACE_NAMESPACE:-}
server=${HEADRACE_REDIS_SERVER:-redis-server}
secrets=${HEADRACE_SECRETS_DIR:-/run/secrets}
users=${HEADRACE_USERS_FILE:-$(dirname "$0")/users.acl}
acl=${HEADRACE_ACL_FILE:-/tmp/users.acl}

fail() {
  echo "start-redis.sh: $1" >&2
  exit 1
}

# The password reaches no command line: printf is part of the shell.
hash_password() {
  file=$secrets/redis-$1
  [ -r "$file" ] && [ -s "$file" ] || fail "the password of $1 is missing: $file cannot be read, or is empty"
  password=$(cat "$file")
  case $password in
    '' | *[[:space:]]*) fail "the password of $1 is blank or has white space in it: $file must hold one word" ;;
  esac
  printf %s "$password" | sha256sum | cut -d ' ' -f 1
}

# An ACL file has one line for each user, and no comments.
write_acl() {
  while read -r rule || [ -n "$rule" ]; do
    case $rule in
      '' | '#'*) ;;
      'user '*'#SHA256'*)
        name=${rule#user }
        hash=$(hash_password "${name%% *}")
        printf '\n%s#%s%s' "${rule%%#SHA256*}" "$hash" "${rule#*#SHA256}"
        ;;
      'user '*) printf '\n%s' "$rule" ;;
      *) printf ' %s' "$rule" ;;
    esac
  done
  echo
}

case $namespace in
  *[!A-Za-z0-9_.:-]*) fail "HEADRACE_NAMESPACE may hold letters, digits and '-', '_', '.', ':' only" ;;
esac
[ -r "$users" ] || fail "the users cannot be read: $users"
prefix=${namespace:+$namespace:}

# A server does not start on a command that it does not know, and 7.0 does not know this one.
case $("$server" --version) in
  *' v='[0-6].*) fail "$server is older than Redis 7.0, which cannot hold these users" ;;
  *' v=7.0.'*) unknown=' +client|setinfo' ;;
  *) unknown= ;;
esac

rm -f "$acl"
(
  umask 077
  sed -e "s/~/~$prefix/g" -e "s/&/\\&$prefix/g" -e "s/\([~&]\)${prefix}rq:/\1rq:/g" \
    -e "s/${unknown:-^$}//" "$users" | write_acl >"$acl"
)
exec "$server" --aclfile "$acl" "$@"
