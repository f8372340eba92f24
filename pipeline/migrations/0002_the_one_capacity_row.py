"""The row that every claim locks exists from the first moment."""

from django.db import migrations


def make_row(apps, schema_editor):
    apps.get_model("pipeline", "Capacity").objects.get_or_create(pk=1)


class Migration(migrations.Migration):
    dependencies = [("pipeline", "0001_initial")]
    operations = [migrations.RunPython(make_row, migrations.RunPython.noop)]
