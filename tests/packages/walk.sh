# Install the packages of /packages with dpkg and walk the article's test page, in a root that is thrown away: what is
# at / here is a layer over the machine's own files, and network and processes are nobody else's.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
ip link set lo up
mkdir -p /run/apache2 /run/lock /var/log/apache2 # as systemd does at boot
say() { echo "== $*"; }

# Something before it may have been enabled here: the article's site is what Apache shows.
rm -f /etc/apache2/mods-enabled/scgi.load /etc/apache2/sites-enabled/*
find /usr /etc -xdev | grep -v __pycache__ | sort >/before
say installed
dpkg --install /packages/*.deb
dpkg --verify python3-scgi-server libapache2-mod-scgi cgi2scgi
say running
ps -eo args= | grep -E '^[^ ]*(apache2|scgi)' || echo nothing
say version
cd /
scgi --version
say import
python3 -c 'import scgi.scgi_server; print(scgi.scgi_server.__file__)'
say enabled
readlink /etc/apache2/mods-enabled/scgi.load

# The article's steps.
cd /usr/lib/python3/dist-packages/scgi
setpriv --reuid=nobody --regid=nogroup --clear-groups python3 scgi_server.py >/server.log 2>&1 &
server=$!
cat >/etc/apache2/conf-available/scgitest.conf <<'END'
ServerName localhost
<Location "/scgitest">
    SCGIHandler On
    Require local
</Location>
SCGIMount /scgitest 127.0.0.1:4000
END
a2enconf --quiet scgitest >/dev/null
say apache
apache2ctl configtest 2>&1
apache2ctl start
# Both come up in their own time: until the page is there, for 15 seconds at most.
say page
curl --silent --show-error --fail --retry 30 --retry-all-errors --retry-delay 1 --retry-max-time 15 \
    'http://127.0.0.1/scgitest?pizza=hawaii' || {
    cat /server.log /var/log/apache2/error.log
    exit 1
}
say stopped
kill "$server"
wait "$server" || true
kill "$(cat /run/apache2/apache2.pid)"
rm /etc/apache2/conf-enabled/scgitest.conf /etc/apache2/conf-available/scgitest.conf

say purged
dpkg --purge python3-scgi-server libapache2-mod-scgi cgi2scgi >/dev/null
find /usr /etc -xdev | grep -v __pycache__ | sort >/after
diff /before /after && echo clean
say end
