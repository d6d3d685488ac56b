"""Mail that pages send at once, so that whoever asked sees whether it left."""

from __future__ import annotations

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.template.loader import render_to_string

from controlplane.tenancy import invitations
from controlplane.tenancy.models import Invitation

log = structlog.get_logger(__name__)


def mail_invitation(*, invitation: Invitation, link: str, organisation: str) -> bool:
    """True when a mail server took it. Without EMAIL_URL nothing is sent: whoever invites copies the link."""
    if not settings.CONFIG.sends_mail:
        return False
    context = {"invitation": invitation, "link": link, "organisation": organisation}
    try:
        send_mail(
            subject=" ".join(f"Join {organisation} on Remit".split()),
            message=render_to_string("mail/invitation.txt", context),
            from_email=None,
            recipient_list=[invitation.email],
        )
    except OSError as error:  # smtplib's errors and the network's
        log.warning("mail.not_sent", what="invitation", error=type(error).__name__)
        return False
    invitations.note_mailed(invitation=invitation)
    return True
