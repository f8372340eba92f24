"""One of several real processes that edit dependencies at once. Begins when a line comes on stdin; prints JSON."""

import json
import os
import sys


def main() -> None:
    edits = json.loads(sys.argv[1])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "huskies_site.settings")
    import django

    django.setup()
    from pipeline.actors import Actor
    from pipeline.exceptions import BadInput
    from pipeline.models import Story
    from pipeline.services.dependencies import promote, set_dependencies

    made, refused, errors = 0, 0, []
    print("ready", flush=True)
    sys.stdin.readline()
    for pk, number in edits:
        try:
            if number is None:
                made += promote(pk)
            else:
                set_dependencies(Story.objects.get(pk=pk), [number], actor=Actor("racer"))
                made += 1
        except BadInput:
            refused += 1
        except Exception as error:
            errors.append(repr(error))
    print(json.dumps({"made": made, "refused": refused, "errors": errors}), flush=True)


main()
