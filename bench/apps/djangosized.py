"""A Django project as large as a real one's beginnings: the admin and all that Django brings along, templates, forms.

/page is a page of a hundred items made from a template, /settle?0.2 the same after a full garbage collection and so
many seconds, /sleep?1 nothing but a second. Every answer ends in a line with the process that gave it, and when it
began (time.monotonic). BENCH_PACKAGES is the folder where Django is installed, for servers whose Python has none. With
BENCH_WARM a page is made as this is imported: then what Django only loads for its first request is there before
workers are forked.
"""
# ruff: noqa: E402 - Django is set up in the middle of the imports

import gc
import os
import sys
import time
from wsgiref.util import setup_testing_defaults

sys.path.append(os.environ["BENCH_PACKAGES"])

import django
from django.conf import settings

PAGE = """
<title>{{ title|upper }}</title>
<form method="post" action="{% url 'page' %}">{{ form.as_p }}</form>
<p>{{ now|date:"r" }}, {{ items|length }} item{{ items|length|pluralize }}</p>
<ul>{% for item in items %}
<li class="{% cycle 'odd' 'even' %}"><a href="{% url 'admin:index' %}?{{ item.number }}">{{ item.name|title }}</a>
{{ item.price|floatformat:2 }}{% if item.number|divisibleby:3 %} (new){% endif %}</li>{% endfor %}
</ul>
"""

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        f"django.contrib.{name}"
        for name in "admin auth contenttypes sessions messages staticfiles sitemaps syndication humanize".split()
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE})],
        },
    }],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    STATIC_URL="/static/",
    USE_TZ=True,
)  # fmt: skip
django.setup()

from django import forms
from django.contrib import admin
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils import timezone


class Order(forms.Form):
    name = forms.CharField(max_length=100)
    mail = forms.EmailField()
    wanted = forms.DateField(required=False)
    paper = forms.ChoiceField(choices=[("plain", "Plain"), ("lined", "Lined")])


def page(request):
    items = [{"number": number, "name": f"item number {number}", "price": number * 1.19} for number in range(100)]
    context = {"title": "catalogue", "form": Order(), "now": timezone.now(), "items": items}
    return signed(request, render(request, "page.html", context))


def settle(request):
    gc.collect()
    time.sleep(float(request.META["QUERY_STRING"]))
    return page(request)


def sleep(request):
    time.sleep(float(request.META["QUERY_STRING"]))
    return signed(request, HttpResponse())


def signed(request, response):
    response.write(f"\n{os.getpid()} {request.META['bench.began']:.6f}\n")
    return response


urlpatterns = [
    path("page", page, name="page"),
    path("settle", settle),
    path("sleep", sleep),
    path("admin/", admin.site.urls),
]

project = get_wsgi_application()


def application(environ, start_response):
    environ["bench.began"] = time.monotonic()
    return project(environ, start_response)


if "BENCH_WARM" in os.environ:
    first = {"PATH_INFO": "/page"}
    setup_testing_defaults(first)
    b"".join(application(first, lambda *head: None))
