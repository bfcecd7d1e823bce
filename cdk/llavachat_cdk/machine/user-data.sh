# llavachat's first boot: fetch the release, hand over to it. All else is in the release.
set -euo pipefail
umask 077
# The service's own user reads its settings there.
mkdir -p -m 755 /etc/llavachat
cat >/etc/llavachat/deployment.json <<'END'
@DEPLOYMENT@
END
read_option() { python3 -c 'import json,sys; print(json.load(open("/etc/llavachat/deployment.json"))[sys.argv[1]])' "$1"; }
AWS_DEFAULT_REGION=$(read_option region)
export AWS_DEFAULT_REGION
report_failure() {
    echo "llavachat: the release could not be fetched or started" >&2
    token=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
    id=$(curl -sS -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/instance-id)
    aws cloudformation signal-resource --stack-name "$(read_option stack)" \
        --logical-resource-id "$(read_option resource)" --unique-id "$id" --status FAILURE
}
trap report_failure ERR
release=/var/lib/llavachat-release
rm -rf "$release" && mkdir -p "$release"
# The role's policy may take some seconds to be in force everywhere.
for attempt in 1 2 3 4 5 6; do
    aws s3 cp --only-show-errors "$(read_option release)" "$release.zip" && break
    test "$attempt" != 6
    sleep 5
done
python3 -m zipfile -e "$release.zip" "$release"
rm "$release.zip"
# It signals success and failure itself.
trap - ERR
PYTHONPATH="$release/machine" exec python3 -m firstboot "$release" /etc/llavachat/deployment.json
