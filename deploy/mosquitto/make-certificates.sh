#!/bin/bash
# Certificates for the broker and, if wanted, for each device (mutual TLS).
#
#   make-certificates.sh ca                         an authority of your own: ca.crt, ca.key
#   make-certificates.sh server NAME [NAME|IP...]   server.crt, server.key for those names
#   make-certificates.sh device NAME                NAME.crt, NAME.key for the device NAME
#
# They go into $CERTS (default /etc/mosquitto/certs); none is overwritten: move it away first.
# Devices get ca.crt (EDGED_MQTT_CA_FILE) and no key but their own. Keep ca.key somewhere safe.
set -euo pipefail
CERTS=${CERTS:-/etc/mosquitto/certs}
CA_DAYS=${CA_DAYS:-3650}
DAYS=${DAYS:-825}
CURVE=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

die() { echo "make-certificates: $*" >&2; exit 1; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fresh() { [ ! -e "$CERTS/$1" ] || die "$CERTS/$1 exists: move it away first"; }
plain() { [[ $1 =~ ^[A-Za-z0-9.:_-]+$ ]] || die "'$1' is neither a host name nor an address"; }

signed() { # signed FILE COMMON-NAME USE [ALTERNATIVE,...]
    [ -e "$CERTS/ca.key" ] || die "there is no authority in $CERTS: make-certificates.sh ca"
    fresh "$1.crt" && fresh "$1.key"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    openssl req "${CURVE[@]}" -subj "/CN=$2" -keyout "$work/key" -out "$work/csr" 2>/dev/null
    {
        echo "extendedKeyUsage=$3"
        echo "keyUsage=critical,digitalSignature"
        echo "authorityKeyIdentifier=keyid"
        [ -z "${4:-}" ] || echo "subjectAltName=$4"
    } >"$work/ext"
    openssl x509 -req -in "$work/csr" -CA "$CERTS/ca.crt" -CAkey "$CERTS/ca.key" -CAcreateserial \
        -CAserial "$CERTS/ca.srl" -days "$DAYS" -out "$work/crt" -extfile "$work/ext" 2>/dev/null
    install -m 644 "$work/crt" "$CERTS/$1.crt"
    install -m 640 "$work/key" "$CERTS/$1.key"
    # mosquitto gives root up before it reads the key again at a reload
    if getent group mosquitto >/dev/null && [ "$(id -u)" -eq 0 ]; then chgrp mosquitto "$CERTS/$1.key"; fi
    echo "$CERTS/$1.crt: valid for $DAYS days${4:+, for $4}"
}

[ $# -ge 1 ] || usage
verb=$1
shift
umask 077
install -d -m 755 "$CERTS"
case $verb in
ca)
    fresh ca.crt && fresh ca.key
    openssl req -x509 "${CURVE[@]}" -days "$CA_DAYS" -subj "/CN=edged authority $(hostname)" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$CERTS/ca.key" -out "$CERTS/ca.crt" 2>/dev/null
    chmod 644 "$CERTS/ca.crt"
    echo "$CERTS/ca.crt: valid for $CA_DAYS days; give it to every device" ;;
server)
    [ $# -ge 1 ] || usage
    names=""
    for name in "$@"; do
        plain "$name"
        kind=DNS
        [[ $name =~ ^[0-9.]+$ || $name == *:* ]] && kind=IP
        names="$names${names:+,}$kind:$name"
    done
    signed server "$1" serverAuth "$names" ;;
device)
    [ $# -eq 1 ] || usage
    plain "$1"
    signed "$1" "$1" clientAuth ;;
*) usage ;;
esac
