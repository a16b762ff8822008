#!/bin/sh
# Makes the files of secrets that docker-compose.yml mounts, those that are not there yet, each with a random word. To take
# a password of your own, write it into its file (letters, digits, - and _ alone), without a line break.
#
# Others cannot get at them: the folder is closed. The files themselves are not, since they are mounted as they are into
# containers whose users are none of this host.
set -eu
cd "$(dirname "$0")/../.."
umask 022
mkdir -p -m 700 secrets
chmod 700 secrets
for name in postgres programs broker grafana; do
    [ -s "secrets/${name}_password" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/${name}_password"
done
[ -s secrets/s3_secret_key ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > secrets/s3_secret_key
# As boto3 reads it, for the S3 server of the profile `s3`.
[ -s secrets/aws_credentials ] || printf '[default]\naws_access_key_id = lookalike\naws_secret_access_key = %s\n' \
    "$(cat secrets/s3_secret_key)" > secrets/aws_credentials
echo "the secrets are in $(pwd)/secrets"
