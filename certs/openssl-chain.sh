#!/bin/sh
# Makes a chain with the openssl command alone, like an existing PKI: a root, an intermediate and one
# node's leaf. It shows what gossipmonger requires of a certificate; the tests use it.
#
#   openssl-chain.sh DIRECTORY KIND CLUSTER DATACENTER NODE [URI]      KIND is p256 or rsa
#
# It makes root and intermediate once per directory. For each node it writes NODE.pem (the leaf, then
# the intermediate) and NODE.key; roots.pem is the same for all nodes. URI: a SPIFFE id of another form.
set -eu
umask 077

[ $# -eq 5 ] || [ $# -eq 6 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1 kind=$2 cluster=$3 datacenter=$4 node=$5
uri=${6:-spiffe://$cluster/$datacenter/$node}

# SEC1 for P-256 and PKCS#1 for RSA: the older key formats, which some tools still write.
make_key() {
    case $kind in
        p256) openssl ecparam -name prime256v1 -genkey -out "$1" ;;
        rsa)
            openssl genrsa -out "$1.any" 2048
            # OpenSSL 3 needs -traditional for PKCS#1, older ones write it anyway.
            openssl rsa -in "$1.any" -out "$1" -traditional || openssl rsa -in "$1.any" -out "$1"
            rm "$1.any"
            ;;
        *) echo "unknown kind $kind: p256 or rsa" >&2; exit 2 ;;
    esac
}

# sign NAME ISSUER DAYS: NAME.csr and NAME.ext -> NAME.crt
sign() {
    openssl x509 -req -sha256 -in "$1.csr" -extfile "$1.ext" -days "$3" \
        -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -out "$1.crt"
}

request() { openssl req -new -sha256 -config minimal.cnf -key "$1.key" -subj "/CN=$2" -out "$1.csr"; }

mkdir -p "$dir"
cd "$dir"
# It ignores the system-wide openssl.cnf, so that every host makes the same certificates.
printf '[req]\ndistinguished_name = dn\n[dn]\n' > minimal.cnf

if [ ! -e roots.pem ]; then
    make_key root.key
    printf 'basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n' > root.ext
    request root "$cluster root"
    openssl x509 -req -sha256 -in root.csr -extfile root.ext -days 3650 -signkey root.key -out root.crt

    make_key intermediate.key
    printf 'basicConstraints = critical, CA:true, pathlen:0\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n' > intermediate.ext
    request intermediate "$cluster intermediate"
    sign intermediate root 1825
    cp root.crt roots.pem
fi

make_key "$node.key"
cat > "$node.ext" <<EOF
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = URI:$uri
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
EOF
request "$node" "$node"
sign "$node" intermediate 30
cat "$node.crt" intermediate.crt > "$node.pem"
