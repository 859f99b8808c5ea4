"""Commands about the catalog: SQL over every table, here or in Athena."""

import sys
from typing import Annotated

import typer

from annotation_platform.cli.options import AsJson
from annotation_platform.cli.output import print_json, print_rows
from annotation_platform.cli.registries import own_lake

app = typer.Typer(help="Query every table in SQL.", no_args_is_help=True)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT statement; SHOW TABLES lists the tables.")],
    as_json: AsJson = False,
) -> None:
    """Run a SELECT over images, quarantine, predictions, labels, versions and every table."""
    from annotation_platform.catalog.query import run_query, to_result

    found = to_result(run_query(own_lake(), sql))
    if as_json:
        print_json({"columns": found.columns, "rows": found.rows})
        return
    print_rows(found.columns, found.rows)


@app.command("athena-ddl")
def athena_ddl(
    location: Annotated[
        str, typer.Option(help="Lake in S3; its tables are below tables/.")
    ] = "s3://bucket/prefix",
    as_json: AsJson = False,
) -> None:
    """Print the statements that declare the lake's tables in Amazon Athena."""
    from annotation_platform.catalog.athena import external_tables

    statements = external_tables(location)
    if as_json:
        print_json({"statements": statements})
        return
    sys.stdout.write("\n".join(f"{each};\n" for each in statements.values()))
