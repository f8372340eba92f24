"""One of several real processes that claim and end sessions all day, while limits change and people stop and start stories.

Orders as JSON in argv: claims, seed, stories. Begins when a line comes on stdin; prints JSON: claims, ends, stops, violations, errors.
"""

import json
import os
import random
import sys
from collections import Counter
from typing import Any


def main() -> None:
    orders = json.loads(sys.argv[1])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "huskies_site.settings")
    import django

    django.setup()
    from django.conf import settings

    settings.HUSKIES_NO_QUEUE = True  # who looks again is this process itself
    churn = Churn(orders)
    print("ready", flush=True)
    sys.stdin.readline()
    # Each process does some of everything, however the lot falls.
    while churn.done["claims"] < orders["claims"] or not (churn.done["stops"] and churn.done["limits"]):
        try:
            churn.turn()
        except Exception as error:
            churn.errors.append(repr(error))
        if len(churn.errors) > 20:
            break
    print(json.dumps({**churn.done, "violations": churn.violations, "errors": churn.errors}), flush=True)


class Churn:
    def __init__(self, orders: dict[str, Any]) -> None:
        self.stories: list[int] = orders["stories"]
        self.lot = random.Random(orders["seed"])
        self.mine: list[int] = []
        self.done: Counter[str] = Counter(claims=0, ends=0, stops=0, limits=0, waits=0)
        self.violations: list[str] = []
        self.errors: list[str] = []

    def turn(self) -> None:
        lot = self.lot.random()
        if self.mine and lot < 0.45:
            self.end(self.mine.pop(self.lot.randrange(len(self.mine))))
        elif lot < 0.48:
            self.change_a_limit()
        elif lot < 0.51:
            self.stop_and_start()
        else:
            self.claim()

    def claim(self) -> None:
        from django.db import transaction

        from agents.exceptions import MustWait
        from agents.services import assigning
        from agents.services.fairness import Served
        from pipeline.models import Story

        story = Story.objects.get(pk=self.lot.choice(self.stories))
        some = [story, *Story.objects.filter(pk__in=self.lot.sample(self.stories, 2)).exclude(pk=story.pk)]
        made: list[Any] = []
        try:
            with transaction.atomic():
                made = assigning._claim(some[: self.lot.choice([1, 1, 3])], Served({}, {})).sessions
                for session in made:
                    self.judge(session)
        except MustWait:
            made = []
        self.done["waits"] += not made
        self.done["claims"] += len(made)
        self.mine += [session.pk for session in made]

    def judge(self, session: Any) -> None:
        """In the claim's own transaction: nobody else claims meanwhile, and an end that is not committed still counts."""
        from agents.models import Limit, Session
        from agents.models.limit import applying

        rows = {(row.scope, row.subject): row.most for row in Limit.objects.all()}
        live = list(Session.objects.live())
        for field, scope in (
            ("project_id", "project"),
            ("role", "role"),
            ("model", "model"),
            ("started_by_id", "user"),
        ):
            subject = getattr(session, field)
            self.within(
                sum(getattr(s, field) == subject for s in live), applying(rows, scope, subject), scope
            )
        self.within(len(live), rows.get(("server", "")), "server")
        self.within(sum(s.agent_id == session.agent_id for s in live), 1, "agent")
        self.within(sum(s.story_id == session.story_id for s in live), 1, "story")

    def within(self, count: int, most: int | None, scope: str) -> None:
        if most is not None and count > most:
            self.violations.append(f"{scope}: {count} of {most}")

    def end(self, pk: int) -> None:
        from django.db import transaction

        from agents.models import Session
        from agents.services import sessions
        from pipeline import moves
        from pipeline.actors import SERVER
        from pipeline.models import Process
        from pipeline.services import processes

        session = Session.objects.select_related("story__project", "process").get(pk=pk)
        with transaction.atomic():
            # As the end of every process does it: its row first.
            Process.objects.select_for_update(of=("self",), no_key=True).get(pk=session.process_id)
            if sessions.close(session, outcome="done", reason="raced", saved=""):
                assert session.process is not None
                processes.finish(session.process)
                moves.note(session.story, "session_ended", actor=SERVER, why=f"session {pk}")
                self.done["ends"] += 1

    def change_a_limit(self) -> None:
        from agents.services import limiting
        from pipeline.actors import Actor

        scope, subject, least, most = self.lot.choice(
            [("server", "", 6, 12), ("role", "coder", 5, 11), ("model", "large", 2, 5), ("user", "", 2, 4), ("user", "anna", 1, 3)]
        )  # fmt: skip
        limiting.set_limit(scope, subject, self.lot.randint(least, most), actor=Actor("racer"))
        self.done["limits"] += 1

    def stop_and_start(self) -> None:
        """A stop that races with claims and ends of the same story; the sweep's part is done here."""
        import contextlib

        from agents.services import pool
        from pipeline.actors import Actor
        from pipeline.exceptions import Refused
        from pipeline.models import Story

        worked = list(
            Story.objects.filter(sessions__state="queued").order_by("pk").values_list("pk", flat=True)
        )
        story = Story.objects.select_related("project").get(pk=self.lot.choice(worked or self.stories))
        with contextlib.suppress(Refused):
            pool.stop_story(story, actor=Actor("racer"))
            self.done["stops"] += 1
        story = Story.objects.select_related("project").get(pk=story.pk)
        with contextlib.suppress(Refused):
            self.done["claims"] += pool.start_story(story, actor=Actor("racer")).session is not None


if __name__ == "__main__":
    main()
