#!/usr/bin/env python3
# hgweb.cgi
from mercurial import demandimport

demandimport.enable()

from mercurial.hgweb import hgweb, wsgicgi

wsgicgi.launch(hgweb(b"hgweb.conf"))
