"""SQLAlchemy and Django: hints put in by a hook, the rest of the application unchanged."""

import threading

import pytest

from tests.crowd import together

HINT = "/* max_wait_ms=200 file=orms.py line=1 */ "
SESSIONS = 6
ROUNDS = 10


def with_hint(sql: str) -> str:
    return HINT + sql if sql.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE") else sql


def sqlalchemy_work(url: str, table: str, dialect: str):
    import sqlalchemy as sa
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
    # one pool for all: connections are shared by the sessions in turn, as in an application
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=SESSIONS)

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def hint(connection, cursor, statement, parameters, context, executemany):
        return with_hint(statement), parameters

    class Base(DeclarativeBase):
        pass

    class Event(Base):
        __tablename__ = table
        id: Mapped[int] = mapped_column(primary_key=True)
        who: Mapped[int]
        n: Mapped[int]
        kind: Mapped[str | None] = mapped_column(sa.String(50))
        data: Mapped[dict] = mapped_column(sa.JSON)
        name: Mapped[str] = mapped_column(sa.String(50), unique=True)

    Base.metadata.create_all(engine)
    step = threading.Barrier(SESSIONS, timeout=60)

    def work(k):
        told, out = {}, []
        with Session(engine) as session:
            for n in range(ROUNDS):
                step.wait()
                event = Event(who=k, n=n, kind="Grüße" if n % 2 else None, data={"n": [n]}, name=f"{k}-{n}")
                session.add(event)
                session.commit()
                told[event.name] = event.id
                step.wait()
                event.kind = f"changed {n}"
                session.commit()
                step.wait()
                result = session.execute(sa.update(Event).where(Event.who == k, Event.n == n).values(n=n + 100))
                out.append(result.rowcount)
                session.commit()
            step.wait()
            session.add_all([Event(who=k, n=n, data={}, name=f"{k}-all-{n}") for n in range(5)])
            session.commit()
            step.wait()
            session.add(Event(who=k, n=1, data={}, name=f"{k}-1"))
            try:
                session.commit()
            except sa.exc.IntegrityError as e:
                session.rollback()
                out.append(type(e.orig).__name__)
            step.wait()
            out.append(session.execute(sa.delete(Event).where(Event.who == k, Event.n >= 105)).rowcount)
            session.commit()
            rows = session.scalars(sa.select(Event).where(Event.who == k).order_by(Event.name)).all()
            assert all(told.get(r.name, r.id) == r.id for r in rows)
            return out + [(r.n, r.kind, r.data, r.name) for r in rows]

    try:
        return together(SESSIONS, work)
    finally:
        engine.dispose()


@pytest.mark.parametrize("database", ["postgres", "postgres-psycopg2", "mariadb", "mariadb-mysqldb"])
def test_sqlalchemy(postgres, mariadb, proxy, table, database):
    dialect, _, driver = database.partition("-")
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb", reason="mysqlclient needs libmariadb-dev to be built")
    results = {}
    for side in "ab":
        before = proxy.stats()["batched_writes_total"]
        if dialect == "postgres":
            port = postgres.port if side == "a" else proxy.postgres_port
            url = f"postgresql+{driver or 'psycopg'}://postgres@127.0.0.1:{port}/postgres"
        else:
            port = mariadb.port if side == "a" else proxy.mariadb_port
            url = f"mysql+{driver or 'pymysql'}://root@127.0.0.1:{port}/d?charset=utf8mb4"
        results[side] = sqlalchemy_work(url, table + side, dialect)
    assert results["b"] == results["a"]
    assert proxy.stats()["batched_writes_total"] - before >= SESSIONS * ROUNDS


@pytest.fixture(scope="module")
def django(postgres, mariadb, proxy):
    """Django configured with four databases: each server direct and through the proxy."""
    import django
    from django.conf import settings

    def pg(port):
        return {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres",
                "HOST": "127.0.0.1", "PORT": port}

    def my(port):
        return {"ENGINE": "django.db.backends.mysql", "NAME": "d", "USER": "root", "HOST": "127.0.0.1", "PORT": port,
                "OPTIONS": {"charset": "utf8mb4"}}

    databases = {"default": pg(postgres.port), "postgres-a": pg(postgres.port), "postgres-b": pg(proxy.postgres_port)}
    try:
        import MySQLdb  # noqa: F401
        databases |= {"mariadb-a": my(mariadb.port), "mariadb-b": my(proxy.mariadb_port)}
    except ImportError:
        pass
    settings.configure(DATABASES=databases, USE_TZ=False, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
    django.setup()
    return databases


@pytest.mark.parametrize("dialect", ["postgres", "mariadb"])
def test_django(proxy, django, table, dialect):
    if f"{dialect}-a" not in django:
        pytest.skip("mysqlclient needs libmariadb-dev to be built")
    from django.db import IntegrityError, connections, models
    results = {}
    for side in "ab":
        alias = f"{dialect}-{side}"

        class Event(models.Model):
            who = models.IntegerField()
            n = models.IntegerField()
            kind = models.CharField(max_length=50, null=True)
            data = models.JSONField(default=dict)
            name = models.CharField(max_length=50, unique=True)

            class Meta:
                app_label = f"{table}{side}"
                db_table = f"{table}{side}"

        with connections[alias].schema_editor() as editor:
            editor.create_model(Event)
        before = proxy.stats()["batched_writes_total"]
        step = threading.Barrier(SESSIONS, timeout=60)

        def work(k, Event=Event, alias=alias, step=step):
            def hint(execute, sql, params, many, context):
                return execute(with_hint(sql), params, many, context)

            told, out = {}, []
            objects = Event.objects.using(alias)
            try:
                with connections[alias].execute_wrapper(hint):
                    for n in range(ROUNDS):
                        step.wait()
                        event = objects.create(who=k, n=n, kind="Grüße" if n % 2 else None, data={"n": [n]},
                                               name=f"{k}-{n}")
                        told[event.name] = event.pk
                        step.wait()
                        event.kind = f"changed {n}"
                        event.save(using=alias)
                        step.wait()
                        out.append(objects.filter(who=k, n=n).update(n=models.F("n") + 100))
                    step.wait()
                    out.append(len(objects.bulk_create([Event(who=k, n=n, name=f"{k}-bulk-{n}") for n in range(5)])))
                    step.wait()
                    try:
                        objects.create(who=k, n=1, name=f"{k}-1")
                    except IntegrityError as e:
                        out.append(type(e.__cause__).__name__)
                    step.wait()
                    out.append(objects.get_or_create(name=f"{k}-got", defaults={"who": k, "n": 7})[1])
                    step.wait()
                    out.append(objects.filter(who=k, n__gte=105).delete()[0])
                rows = list(objects.filter(who=k).order_by("name"))
                assert all(told.get(r.name, r.pk) == r.pk for r in rows)
                return out + [(r.n, r.kind, r.data, r.name) for r in rows]
            finally:
                connections[alias].close()

        results[side] = together(SESSIONS, work)
    assert results["b"] == results["a"]
    assert proxy.stats()["batched_writes_total"] - before >= SESSIONS * ROUNDS
    connections.close_all()
