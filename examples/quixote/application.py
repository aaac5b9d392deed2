# application.py
from quixote.demo import create_publisher
from quixote.wsgi import QWIP

application = QWIP(create_publisher())
