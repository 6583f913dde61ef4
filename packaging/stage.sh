#!/bin/sh
# Puts all files of a package below a directory, with their modes: the one list, for RPM and deb alike.
#
# usage: stage.sh rpm|deb DIR
# env:   PROGRAM   the program
#        PAGES     what `make pages` made
set -eu
umask 022
cd "$(dirname "$0")/.."
format=$1 dir=$2
doc=/usr/share/doc/heat-salt-bootstrap

case $format in
rpm) zsh=/usr/share/zsh/site-functions licences=/usr/share/licenses/heat-salt-bootstrap ;;
deb) zsh=/usr/share/zsh/vendor-completions licences=$doc ;;
*) echo "usage: stage.sh rpm|deb DIR" >&2 && exit 2 ;;
esac

# list: MODE SOURCE PLACE; without a source a directory or, of a file, an empty one.
list() {
    cat <<EOT
0755 $PROGRAM /usr/bin/heat-salt-bootstrap
0644 packaging/systemd/heat-salt-bootstrap.service /usr/lib/systemd/system/heat-salt-bootstrap.service
0644 packaging/systemd/heat-salt-bootstrap-signal.service /usr/lib/systemd/system/heat-salt-bootstrap-signal.service
0644 packaging/systemd/heat-salt-bootstrap-deregister.service /usr/lib/systemd/system/heat-salt-bootstrap-deregister.service
0644 packaging/systemd/heat-salt-bootstrap-renew.service /usr/lib/systemd/system/heat-salt-bootstrap-renew.service
0644 packaging/systemd/heat-salt-bootstrap-renew.timer /usr/lib/systemd/system/heat-salt-bootstrap-renew.timer
0644 packaging/tmpfiles.conf /usr/lib/tmpfiles.d/heat-salt-bootstrap-state.conf
0700 - /etc/heat-salt-bootstrap/config.d/
0600 - /etc/heat-salt-bootstrap/config.json
0700 - /var/lib/heat-salt-bootstrap/
0644 $PAGES/heat-salt-bootstrap-config.5 /usr/share/man/man5/heat-salt-bootstrap-config.5
0644 $PAGES/heat-salt-bootstrap.bash /usr/share/bash-completion/completions/heat-salt-bootstrap
0644 $PAGES/_heat-salt-bootstrap $zsh/_heat-salt-bootstrap
0644 $PAGES/heat-salt-bootstrap.fish /usr/share/fish/vendor_completions.d/heat-salt-bootstrap.fish
0644 $PAGES/THIRD-PARTY-LICENSES $licences/THIRD-PARTY-LICENSES
0644 README.md $doc/README.md
0644 SECURITY.md $doc/SECURITY.md
EOT
    if [ "$format" = rpm ]; then
        echo "0644 packaging/preset.conf /usr/lib/systemd/system-preset/90-heat-salt-bootstrap.preset"
        echo "0644 LICENSE $licences/LICENSE"
        # As Fedora's tools read them. In a deb THIRD-PARTY-LICENSES says the same.
        echo "0644 $PAGES/LICENSE.dependencies $licences/LICENSE.dependencies"
        echo "0644 $PAGES/cargo-vendor.txt $licences/cargo-vendor.txt"
        echo "0644 CHANGELOG.md $doc/CHANGELOG.md"
    else
        echo "0644 packaging/deb/copyright $doc/copyright"
        echo "0644 packaging/deb/lintian-overrides /usr/share/lintian/overrides/heat-salt-bootstrap"
        echo "0644 CHANGELOG.md $doc/changelog"
    fi
    # The program's, and one for each verb.
    for page in "$PAGES"/heat-salt-bootstrap*.1; do
        echo "0644 $page /usr/share/man/man1/${page##*/}"
    done
    for page in docs/*.md docs/debugging/*.md docs/*.schema.json docs/*.svg; do
        echo "0644 $page $doc/$page"
    done
}

list | while read -r mode source place; do
    case $place in
    */) install -d -m "$mode" "$dir$place" ;;
    *)
        if [ "$source" = - ]; then source=/dev/null; fi
        install -D -m "$mode" "$source" "$dir$place"
        ;;
    esac
done
# What leads to secrets is root's own.
chmod 0700 "$dir/etc/heat-salt-bootstrap"
# Without a name and a time, so that the same page gives the same bytes.
gzip -9n "$dir"/usr/share/man/man?/*
if [ "$format" = deb ]; then gzip -9n "$dir$doc/changelog"; fi
