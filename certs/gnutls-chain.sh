#!/bin/sh
# Makes a chain with GnuTLS's certtool alone: a root, an intermediate and one node's leaf with any
# SPIFFE id, like an existing PKI that was not made for gossipmonger.
#
#   gnutls-chain.sh DIRECTORY NAME URI
#
# It makes root and intermediate once per directory, and writes NAME.pem (the leaf, then the
# intermediate) and NAME.key; roots.pem is the same for all nodes.
set -eu
umask 077

[ $# -eq 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1 name=$2 uri=$3

make_key() { certtool --generate-privkey --key-type ecdsa --curve secp256r1 --outfile "$1" 2>> certtool.log; }

mkdir -p "$dir"
cd "$dir"

if [ ! -e roots.pem ]; then
    make_key root.key
    printf 'cn = "root"\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 3650\n' > root.cfg
    certtool --generate-self-signed --load-privkey root.key --template root.cfg \
        --outfile root.crt 2>> certtool.log

    make_key intermediate.key
    printf 'cn = "intermediate"\nca\npath_len = 0\ncert_signing_key\nexpiration_days = 1825\n' > intermediate.cfg
    certtool --generate-certificate --load-privkey intermediate.key --template intermediate.cfg \
        --load-ca-certificate root.crt --load-ca-privkey root.key \
        --outfile intermediate.crt 2>> certtool.log
    cp root.crt roots.pem
fi

make_key "$name.key"
cat > "$name.cfg" <<EOF
cn = "$name"
uri = "$uri"
signing_key
tls_www_server
tls_www_client
expiration_days = 30
EOF
certtool --generate-certificate --load-privkey "$name.key" --template "$name.cfg" \
    --load-ca-certificate intermediate.crt --load-ca-privkey intermediate.key \
    --outfile "$name.crt" 2>> certtool.log
cat "$name.crt" intermediate.crt > "$name.pem"
