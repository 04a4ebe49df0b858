"""One call of Django's by several threads; arguments: postgres | mariadb, port, database, call, threads, rounds."""

import sys
import threading

import django
from django.conf import settings

dialect, port, database, call, threads, rounds = sys.argv[1:]
engine, user = {"postgres": ("postgresql", "postgres"), "mariadb": ("mysql", "root")}[dialect]
settings.configure(
    DATABASES={"default": {"ENGINE": f"django.db.backends.{engine}", "HOST": "127.0.0.1", "PORT": port, "USER": user,
                           "NAME": database}},
    INSTALLED_APPS=[], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()
from django.db import connection, models, transaction  # noqa: E402


class Event(models.Model):
    kind = models.CharField(max_length=99)

    class Meta:
        app_label = "calls"
        db_table = "events"


def save(event: Event, kind: str) -> None:
    event.kind = kind
    event.save()


def atomic(event: Event, kind: str) -> None:
    with transaction.atomic():
        Event.objects.create(kind=kind)


CALLS = {
    "create": lambda event, kind: Event.objects.create(kind=kind),
    "save": save,
    "update": lambda event, kind: Event.objects.filter(pk=event.pk).update(kind=kind),
    "delete": lambda event, kind: Event.objects.create(kind=kind).delete(),
    "get_or_create": lambda event, kind: Event.objects.get_or_create(kind=kind),
    "update_or_create": lambda event, kind: Event.objects.update_or_create(pk=event.pk, defaults={"kind": kind}),
    "bulk_create": lambda event, kind: Event.objects.bulk_create([Event(kind=kind)]),
    "atomic": atomic,
}


def work(number: int) -> None:
    event = Event.objects.filter(kind=f"of {number}").get()
    for k in range(int(rounds)):
        CALLS[call](event, f"{call} {number} {k}")
    connection.close()


running = [threading.Thread(target=work, args=(number,)) for number in range(int(threads))]
for thread in running:
    thread.start()
for thread in running:
    thread.join()
