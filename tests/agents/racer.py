"""One of several real processes that race. Reads its orders as JSON from argv; begins when a line comes on stdin; prints JSON."""

import json
import os
import sys


def main() -> None:
    orders = json.loads(sys.argv[1])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "huskies_site.settings")
    import django

    django.setup()
    from agents.models import PermissionRequest
    from agents.services import assigning, permissions, pool
    from pipeline.actors import Actor
    from pipeline.exceptions import Refused
    from pipeline.models import Story
    from pipeline.services.deleting import delete_story
    from pipeline.services.stories import perform

    granted, waits, refused, errors = [], 0, 0, []
    print("ready", flush=True)
    sys.stdin.readline()
    for pk in orders.get("requests", []):
        asked = PermissionRequest.objects.select_related("session__story__project", "session__project").get(
            pk=pk
        )
        try:
            permissions.answer(asked, allow=orders["verb"] == "allow", actor=Actor(orders["name"]))
            granted.append(pk)
        except Refused:
            refused += 1
        except Exception as error:
            errors.append(repr(error))
    for pk in orders["stories"]:
        story = Story.objects.filter(pk=pk).first()
        if story is None:  # deleted by another
            refused += 1
            continue
        try:
            if orders["verb"] == "start":
                started = pool.start_story(story, actor=Actor(orders["name"]))
                granted.append(started.session.pk) if started.session else None
                waits += started.session is None
            elif orders["verb"] == "pass":
                waits += assigning.auto_assign()
            elif orders["verb"] == "delete":
                delete_story(story, actor=Actor(orders["name"]))
                granted.append(pk)
            else:
                perform(story, orders["verb"], actor=Actor(orders["name"]), why="race")
                granted.append(pk)
        except Refused:
            refused += 1
        except Exception as error:
            errors.append(repr(error))
    print(json.dumps({"granted": granted, "waits": waits, "refused": refused, "errors": errors}), flush=True)


main()
