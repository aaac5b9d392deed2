# wiki/application.py
from moin.app import create_app

application = create_app("wikiconfig.py")
