#!/bin/sh
# Puts all files of the package for masters below a directory, with their modes: the one list, for RPM and deb alike.
#
# usage: stage.sh rpm|deb DIR
# env:   EXTENSION   what assemble.sh made
set -eu
umask 022
cd "$(dirname "$0")/../.."
format=$1 dir=$2
name=heat-salt-bootstrap-master
doc=/usr/share/doc/$name

case $format in
rpm) licences=/usr/share/licenses/$name ;;
deb) licences=$doc ;;
*) echo "usage: stage.sh rpm|deb DIR" >&2 && exit 2 ;;
esac

# list: MODE SOURCE PLACE
list() {
    cat <<EOT
0755 packaging/master/heat-bootstrap /usr/bin/heat-bootstrap
0755 packaging/master/pythons /usr/lib/$name/pythons
0644 cloud-init/salt-master/master.d/heat-salt-bootstrap.conf /etc/salt/master.d/heat-salt-bootstrap.conf
0644 salt-extension/heat-bootstrap.8 /usr/share/man/man8/heat-bootstrap.8
0644 salt-extension/heat-bootstrap.bash /usr/share/bash-completion/completions/heat-bootstrap
0644 $EXTENSION/THIRD-PARTY-LICENSES $licences/THIRD-PARTY-LICENSES
0644 salt-extension/README.md $doc/README.md
0644 salt-extension/PROTOCOL.md $doc/PROTOCOL.md
0644 docs/master.md $doc/master.md
0644 docs/scaling.md $doc/scaling.md
EOT
    if [ "$format" = rpm ]; then
        echo "0644 LICENSE $licences/LICENSE"
        echo "0644 CHANGELOG.md $doc/CHANGELOG.md"
    else
        echo "0644 packaging/master/deb/copyright $doc/copyright"
        echo "0644 packaging/master/deb/lintian-overrides /usr/share/lintian/overrides/$name"
        echo "0644 CHANGELOG.md $doc/changelog"
    fi
}

list | while read -r mode source place; do install -D -m "$mode" "$source" "$dir$place"; done
# Compiled files hold the time of their source, and are of one Python: whoever installs it makes them.
cp -r --preserve=mode "$EXTENSION/python" "$dir/usr/lib/$name/"
# Without a name and a time, so that the same page gives the same bytes.
gzip -9n "$dir/usr/share/man/man8/heat-bootstrap.8"
if [ "$format" = deb ]; then gzip -9n "$dir$doc/changelog"; fi
