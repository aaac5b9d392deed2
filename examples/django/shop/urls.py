# shop/urls.py
from django.contrib import admin
from django.http import StreamingHttpResponse
from django.urls import path


def numbers(request):
    return StreamingHttpResponse((f"{number}\n" for number in range(10_000)), content_type="text/plain")


urlpatterns = [path("admin/", admin.site.urls), path("numbers", numbers)]
