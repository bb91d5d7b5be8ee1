#!/bin/sh
# Starts Graphite, StatsD and Grafana on this host. At its first run it makes what must be on no other machine, in no
# user data and in no state: the passwords, and the key of the certificate. Can be run again.
set -eu
umask 077
cd "$(dirname "$0")"

random() {
    openssl rand -hex 32
}

# Written under another name first: a file that is there is whole.
[ -f graphite.env ] || { echo "GRAPHITE_SECRET_KEY=$(random)" >graphite.env.new && mv graphite.env.new graphite.env; }
[ -f grafana.env ] || { echo "GF_SECURITY_ADMIN_PASSWORD=$(random)" >grafana.env.new && mv grafana.env.new grafana.env; }

mkdir -p tls
if [ ! -f tls/certificate.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 730 -subj "/CN=fleetmem Graphite" \
        -keyout tls/key.pem -out tls/certificate.pem.new 2>/dev/null
    mv tls/certificate.pem.new tls/certificate.pem
fi

# Public, for `make remote-test`, which trusts this certificate and no other.
cp tls/certificate.pem certificate.pem
chmod 644 certificate.pem
# `make remote-dashboards` writes here as the login user; Grafana reads it as a user of its own.
mkdir -p dashboards
chmod 755 dashboards
chown "${LOGIN_USER:-ubuntu}" dashboards

systemctl enable --now fleetmem-prune.timer
docker compose up --detach --wait --wait-timeout 600
