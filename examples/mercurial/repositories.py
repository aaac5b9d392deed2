# repositories.py
from mercurial.hgweb import hgweb

application = hgweb(b"hgweb.conf")
