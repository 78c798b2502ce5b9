"""Blocking and unblocking users. The rule that a block stops a message is in `blocking.models.blocks`."""

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import Http404

from accounts.models import ACCOUNT_IS_DELETED, NO_SUCH_USER, is_deleted
from blocking.models import Block
from config.log import record_event


def block_user(*, blocker: User, blocked: User) -> Block:
    """Stop `blocked` from sending messages to `blocker`.

    Raises ValidationError if they are the same user, or if `blocked` is already blocked or their account was deleted.
    """
    if blocker == blocked:
        raise ValidationError({"blocked": ["You cannot block yourself."]})
    try:
        with transaction.atomic():
            # Locks the users in one order, so that neither account is deleted between the check and the write.
            users = User.objects.select_for_update(no_key=True).order_by("pk").in_bulk([blocker.pk, blocked.pk])
            if blocked.pk not in users:
                raise ValidationError({"blocked": [NO_SUCH_USER]})
            if is_deleted(users[blocked.pk]):
                raise ValidationError({"blocked": [ACCOUNT_IS_DELETED]})
            if blocker.pk not in users or is_deleted(users[blocker.pk]):
                raise ValidationError("Your account was deleted.")
            block = Block.objects.create(blocker=blocker, blocked=blocked)
    except IntegrityError:
        raise ValidationError({"blocked": ["You already block this user."]}) from None
    record_event("Block User", who=blocker.username, whom=blocked.username)
    return block


def unblock_user(block: Block) -> None:
    """Delete the block, so that the user can send messages again. Raises Http404 if another request has deleted it."""
    deleted, _ = Block.objects.filter(pk=block.pk).delete()
    if not deleted:
        raise Http404
    record_event("Unblock User", who=block.blocker.username, whom=block.blocked.username)
