"""One way of writing with SQLAlchemy, by several threads; arguments as of ``with_django``."""

import sys
import threading

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

dialect, port, database, call, threads, rounds = sys.argv[1:]
user = {"postgres": "postgresql+psycopg://postgres", "mariadb": "mysql+pymysql://root"}[dialect]
engine = sa.create_engine(f"{user}@127.0.0.1:{port}/{database}", pool_size=int(threads),
                          **({"isolation_level": "AUTOCOMMIT"} if call == "autocommit" else {}))
single = engine.execution_options(isolation_level="AUTOCOMMIT")


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


def with_session(kind: str) -> None:
    with Session(engine) as session:
        session.add(Event(kind=kind))
        session.commit()


def begin(kind: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(Event).values(kind=kind))


def option(kind: str) -> None:
    with single.connect() as connection:
        connection.execute(sa.insert(Event).values(kind=kind))


CALLS = {"session": with_session, "autocommit": with_session, "begin": begin, "option": option}


def work(number: int) -> None:
    for k in range(int(rounds)):
        CALLS[call](f"{call} {number} {k}")


running = [threading.Thread(target=work, args=(number,)) for number in range(int(threads))]
for thread in running:
    thread.start()
for thread in running:
    thread.join()
engine.dispose()
