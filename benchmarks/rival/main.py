"""The service `rival`, to compare with: FastAPI, SQLAlchemy's asyncio ORM and asyncpg, as in their documentation.

It leaves out registration, login, logs, request ids, limits, idempotency keys, conversations and read marks.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field
from sqlalchemy import DateTime, ForeignKey, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

PAGE_SIZE = 20

url = os.environ["DATABASE_URL"].replace("postgresql", "postgresql+asyncpg")
engine = create_async_engine(url, pool_size=20, max_overflow=0)  # busy workers would open and close those beyond the pool
app = FastAPI()
app.add_api_route("/readyz", lambda: {})  # noqa: PIE807 - `dict` has no signature


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)


class Token(Base):
    __tablename__ = "tokens"
    digest: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    expiry: Mapped[datetime]


class Block(Base):
    __tablename__ = "blocks"
    blocker_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    blocked_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    sender_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    receiver_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    content: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    read: Mapped[datetime | None]
    sender: Mapped[User] = relationship(foreign_keys=[sender_id])
    receiver: Mapped[User] = relationship(foreign_keys=[receiver_id])


class NewMessage(BaseModel):
    receiver: str
    content: str = Field(min_length=1, max_length=10_000)


class ShownMessage(BaseModel):
    id: int
    sender: str
    receiver: str
    content: str
    created: datetime
    read: datetime | None


class Page(BaseModel):
    count: int
    next: str | None
    previous: str | None
    results: list[ShownMessage]


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_user(session: Session, header: Annotated[str, Depends(APIKeyHeader(name="Authorization"))]) -> User:
    digest = hashlib.sha512(header.removeprefix("Token ").encode()).hexdigest()
    user = await session.scalar(select(User).join(Token).where(Token.digest == digest, Token.expiry > datetime.now(UTC)))
    if user is None:
        raise HTTPException(401, "Invalid token.")
    return user


CurrentUser = Annotated[User, Depends(get_user)]


def as_shown(message: Message) -> ShownMessage:
    names = {"sender": message.sender.username, "receiver": message.receiver.username}
    return ShownMessage(id=message.id, content=message.content, created=message.created, read=message.read, **names)


class Paginator:
    def __init__(self, request: Request, session: Session, page: Annotated[int, Query(ge=1)] = 1) -> None:
        self.url, self.session, self.page = request.url, session, page

    async def __call__(self, query: Select[tuple[Message]]) -> Page:
        count = await self.session.scalar(select(func.count()).select_from(query.subquery())) or 0
        query = query.options(joinedload(Message.sender), joinedload(Message.receiver)).order_by(Message.created.desc())
        messages = await self.session.scalars(query.limit(PAGE_SIZE).offset((self.page - 1) * PAGE_SIZE))
        return Page(
            count=count,
            next=str(self.url.include_query_params(page=self.page + 1)) if self.page * PAGE_SIZE < count else None,
            previous=str(self.url.include_query_params(page=self.page - 1)) if self.page > 1 else None,
            results=[as_shown(message) for message in messages],
        )


Paginate = Annotated[Paginator, Depends()]


@app.post("/api/message", status_code=201)
async def send_message(session: Session, sender: CurrentUser, new: NewMessage) -> ShownMessage:
    receiver = await session.scalar(select(User).where(User.username == new.receiver))
    if receiver is None:
        raise HTTPException(400, "There is no such user.")
    if await session.scalar(select(Block.blocker_id).where(Block.blocker_id == receiver.id, Block.blocked_id == sender.id)):
        raise HTTPException(403, "This user does not receive messages from you.")
    message = Message(sender=sender, receiver=receiver, content=new.content)
    session.add(message)
    await session.commit()
    return as_shown(message)


@app.get("/api/message")
async def list_messages(user: CurrentUser, paginate: Paginate, after: int | None = None) -> Page:
    query = select(Message).where(or_(Message.sender_id == user.id, Message.receiver_id == user.id))
    return await paginate(query if after is None else query.where(Message.id > after))


@app.get("/api/message/sent")
async def list_sent(user: CurrentUser, paginate: Paginate, receiver: str | None = None, date: date | None = None) -> Page:
    query = select(Message).where(Message.sender_id == user.id)
    if receiver is not None:
        query = query.where(Message.receiver.has(User.username == receiver))
    if date is not None:
        start = datetime.combine(date, time(), UTC)
        query = query.where(Message.created >= start, Message.created < start + timedelta(days=1))
    return await paginate(query)
